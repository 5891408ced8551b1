package gpu

import (
	"testing"

	"pgregory.net/rapid"
)

func TestDeriveState(t *testing.T) {
	held := Holder{Run: "a", Milli: 300}
	releasing := Holder{Run: "b", Milli: 300, Releasing: true}
	stuck := Holder{Run: "c", Milli: 400, Releasing: true, Stuck: true}
	for _, test := range []struct {
		name    string
		holders []Holder
		want    State
	}{
		{"nobody", nil, Free},
		{"held", []Holder{held}, Held},
		{"releasing", []Holder{releasing}, Releasing},
		{"releasing beats held", []Holder{releasing, held}, Releasing},
		{"releasing beats held, other order", []Holder{held, releasing}, Releasing},
		{"stuck beats all", []Holder{held, stuck, releasing}, Stuck},
		{"stuck without releasing", []Holder{{Stuck: true}, held}, Stuck},
	} {
		d := Device{Holders: test.holders}
		if got := d.DeriveState(); got != test.want {
			t.Errorf("%s: state %q, want %q", test.name, got, test.want)
		}
	}
}

// A releasing or stuck holder still has its share: only its going frees it.
func TestHeldMilliCountsEveryHolder(t *testing.T) {
	d := Device{Holders: []Holder{{Milli: 300}, {Milli: 200, Releasing: true}, {Milli: 100, Stuck: true}}}
	if got := d.HeldMilli(); got != 600 {
		t.Errorf("held %d milli, want 600", got)
	}
}

func TestEpochIsATotalOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		epoch := rapid.Custom(func(t *rapid.T) Epoch {
			return Epoch{Incarnation: rapid.Uint64Range(0, 3).Draw(t, "incarnation"), Index: rapid.Uint64Range(0, 3).Draw(t, "index")}
		})
		a, b, c := epoch.Draw(t, "a"), epoch.Draw(t, "b"), epoch.Draw(t, "c")
		if a.Less(a) {
			t.Fatal("an epoch comes before itself")
		}
		if a != b && a.Less(b) == b.Less(a) {
			t.Fatalf("%v and %v are not ordered", a, b)
		}
		if a.Less(b) && b.Less(c) && !a.Less(c) {
			t.Fatalf("%v < %v < %v isn't transitive", a, b, c)
		}
	})
}

// A restore raises the incarnation and may lower the index: it must still be
// the later one.
func TestEpochOfAnEarlierIncarnationComesFirst(t *testing.T) {
	before, after := Epoch{Incarnation: 1, Index: 900}, Epoch{Incarnation: 2, Index: 5}
	if !before.Less(after) || after.Less(before) {
		t.Error("an index of an earlier incarnation counts as later")
	}
}
