package guard

import (
	"errors"
	"testing"
)

func TestStep(t *testing.T) {
	at := func(term, kill, termed, killed, emptied int64) *Entry {
		return &Entry{Deadline: Deadline{Term: term, Kill: kill}, Termed: termed, Killed: killed, Emptied: emptied}
	}
	for name, c := range map[string]struct {
		entry *Entry
		now   int64
		due   action
		wait  int64
	}{
		"before both":             {at(100, 200, 0, 0, 0), 40, actNone, 60},
		"at the TERM":             {at(100, 200, 0, 0, 0), 100, actTerm, 0},
		"between":                 {at(100, 200, 100, 0, 0), 150, actNone, 50},
		"no TERM wanted":          {at(0, 200, 0, 0, 0), 150, actNone, 50},
		"at the end":              {at(100, 200, 100, 0, 0), 200, actKill, 0},
		"both missed":             {at(100, 200, 0, 0, 0), 900, actKill, 0},
		"killed, not empty":       {at(100, 200, 100, 200, 0), 210, actKill, 0},
		"empty":                   {at(100, 200, 100, 200, 210), 211, actKill, 0},
		"a day after it was":      {at(100, 200, 100, 200, 210), 210 + keepEnded, actForget, 0},
		"never empty":             {at(100, 200, 100, 200, 0), 210 + 2*keepEnded, actKill, 0},
		"killed, and clock reset": {at(100, 200, 100, 200, 0), 0, actKill, 0},
	} {
		if due, wait := step(c.entry, c.now); due != c.due || wait != c.wait {
			t.Errorf("%s: %v, wait %d; want %v, %d", name, due, wait, c.due, c.wait)
		}
	}
}

func TestReplace(t *testing.T) {
	held := Entry{Deadline: Deadline{Run: "r", Term: 100, Kill: 200}}
	termed, killed := held, held
	termed.Termed = 105
	killed.Termed, killed.Killed, killed.Emptied = 105, 201, 203
	for name, c := range map[string]struct {
		held       *Entry
		term, kill int64
		stop       bool
		now        int64
		err        error
		want       [3]int64 // kill, termed, killed afterwards
	}{
		"first":                        {nil, 1, 2, false, 0, nil, [3]int64{2, 0, 0}},
		"first, overdue":               {nil, 1, 2, false, 9, nil, [3]int64{2, 0, 0}},
		"later":                        {&held, 150, 300, false, 50, nil, [3]int64{300, 0, 0}},
		"the same":                     {&held, 100, 200, false, 50, nil, [3]int64{200, 0, 0}},
		"earlier":                      {&held, 100, 199, false, 50, ErrEarlier, [3]int64{200, 0, 0}},
		"stop earlier":                 {&held, 51, 60, true, 50, nil, [3]int64{60, 0, 0}},
		"stop in the past":             {&held, 0, 10, true, 50, nil, [3]int64{10, 0, 0}},
		"later after TERM":             {&termed, 250, 300, false, 110, nil, [3]int64{300, 0, 0}},
		"later, TERM before the sent":  {&termed, 90, 300, false, 110, nil, [3]int64{300, 105, 0}},
		"later without TERM, after it": {&termed, 0, 300, false, 110, nil, [3]int64{300, 105, 0}},
		"later after the end":          {&killed, 250, 300, false, 210, ErrEnded, [3]int64{200, 105, 201}},
		"later when the end is due":    {&held, 250, 300, false, 200, ErrEnded, [3]int64{200, 0, 0}},
		"the same after the end":       {&killed, 100, 200, false, 210, nil, [3]int64{200, 105, 201}},
		"stop after the end":           {&killed, 220, 230, true, 210, nil, [3]int64{200, 105, 201}},
	} {
		d := &Deadline{Run: "r", Term: c.term, Kill: c.kill}
		got, err := replace(c.held, d, c.stop, c.now)
		if !errors.Is(err, c.err) || (err != nil) != (c.err != nil) {
			t.Errorf("%s: %v, want %v", name, err, c.err)
		}
		if is := [3]int64{got.Kill, got.Termed, got.Killed}; is != c.want {
			t.Errorf("%s: kill, termed, killed = %v, want %v", name, is, c.want)
		}
	}
}
