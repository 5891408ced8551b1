package state

import (
	"cmp"
	"maps"
	"slices"

	"berth/workspace"
)

// sums is what a budget's scope has spent and reserved on one UTC day. They are
// kept where no budget is set, too: one may be set later.
type sums struct {
	Scope     scope         `cbor:"1,keyasint"`
	Workspace string        `cbor:"2,keyasint,omitempty"`
	User      string        `cbor:"3,keyasint,omitempty"`
	Day       workspace.Day `cbor:"4,keyasint"`
	Spent     int64         `cbor:"5,keyasint,omitempty"` // micro-USD
	Reserved  int64         `cbor:"6,keyasint,omitempty"`
}

// scope is whose money a sum counts.
type scope string

const (
	ofCluster   scope = "c"
	ofWorkspace scope = "w"
	ofUser      scope = "u" // in one workspace
)

func (s *sums) key() []byte {
	return key(string(s.Scope), s.Workspace, s.User, uint64(s.Day)) // #nosec G115 -- after 1970
}

var days = table[sums]{name: "days", indexes: []index[sums]{
	{name: "id", key: (*sums).key},
}}

// account is a workspace's money over all days.
type account struct {
	Workspace string `cbor:"1,keyasint"`
	Spent     int64  `cbor:"2,keyasint,omitempty"` // micro-USD, ever
	Reserved  int64  `cbor:"3,keyasint,omitempty"`
	Folded    int64  `cbor:"4,keyasint,omitempty"` // of Spent: by runs that history has forgotten
	// Of the spending limit's generation:
	Generation uint64 `cbor:"5,keyasint,omitempty"`
	Accrued    int64  `cbor:"6,keyasint,omitempty"`
	Held       int64  `cbor:"7,keyasint,omitempty"` // reserved
}

var accounts = table[account]{name: "accounts", indexes: []index[account]{
	{name: "id", key: func(a *account) []byte { return key(a.Workspace) }},
}}

// books is where sums and accounts are read: a view, or an entry under way.
type books interface {
	reader
	sumsOf(scope scope, workspace, user string, day workspace.Day) sums
	accountOf(workspace string) account
	payerOf(workspace, user string) *payer
}

// ledgers is a view's books.
type ledgers struct{ reader }

func (l ledgers) sumsOf(of scope, ws, user string, day workspace.Day) sums {
	s := sums{Scope: of, Workspace: ws, User: user, Day: day}
	if old := days.get(l.reader, "id", s.key()); old != nil {
		return *old
	}
	return s
}

func (l ledgers) accountOf(ws string) account {
	if old := accounts.get(l.reader, "id", ws); old != nil {
		return *old
	}
	return account{Workspace: ws}
}

func (l ledgers) payerOf(ws, user string) *payer { return payerOf(l.reader, ws, user) }

// An entry keeps the books it has touched beside the tables and writes each once,
// at its end: a renewal of many leases raises the same few sums over and over.

// sumsOf names the sums of a scope on a day.
type sumsOf struct {
	of       scope
	ws, user string
	day      workspace.Day
}

func (k sumsOf) compare(o sumsOf) int {
	return cmp.Or(cmp.Compare(k.of, o.of), cmp.Compare(k.ws, o.ws), cmp.Compare(k.user, o.user), cmp.Compare(k.day, o.day))
}

// openBooks are the books an entry has open.
type openBooks struct {
	days     map[sumsOf]*sums
	accounts map[string]*account
	usage    map[string]*usage
	payer    *payer // the latest
	payers   payers // as of the workspaces and the cluster that are written
}

func (t *tx) sumsOf(of scope, ws, user string, day workspace.Day) sums {
	return *t.sums(of, ws, user, day)
}

func (t *tx) sums(of scope, ws, user string, day workspace.Day) *sums {
	if p := t.books.payer; p != nil && p.day == day {
		if s := p.sums(of, ws, user); s != nil {
			return s
		}
	}
	k := sumsOf{of, ws, user, day}
	s := t.books.days[k]
	if s == nil {
		got := ledgers{t}.sumsOf(of, ws, user, day)
		s = &got
		if t.books.days == nil {
			t.books.days = map[sumsOf]*sums{}
		}
		t.books.days[k] = s
	}
	return s
}

func (t *tx) accountOf(ws string) account { return *t.account(ws) }

func (t *tx) account(ws string) *account {
	a := t.books.accounts[ws]
	if a == nil {
		got := ledgers{t}.accountOf(ws)
		a = &got
		if t.books.accounts == nil {
			t.books.accounts = map[string]*account{}
		}
		t.books.accounts[ws] = a
	}
	return a
}

// keepBooks writes the open books.
func (t *tx) keepBooks() {
	for _, k := range slices.SortedFunc(maps.Keys(t.books.days), sumsOf.compare) {
		s := t.books.days[k]
		if s.Spent != 0 || s.Reserved != 0 || days.get(t, "id", s.key()) != nil {
			days.put(t, s)
		}
	}
	for _, k := range slices.Sorted(maps.Keys(t.books.accounts)) {
		a := t.books.accounts[k]
		if *a != (account{Workspace: a.Workspace}) || accounts.get(t, "id", a.Workspace) != nil {
			accounts.put(t, a)
		}
	}
	for _, k := range slices.Sorted(maps.Keys(t.books.usage)) {
		usages.put(t, t.books.usage[k])
	}
	t.books = openBooks{}
}

func (t *tx) payerOf(ws, user string) *payer {
	b := &t.books
	if b.payers == nil {
		b.payers, b.payer = payers{}, nil
	}
	if p := b.payer; p == nil || p.workspace.ID != ws || p.user != user {
		b.payer = b.payers.of(t, ws, user)
	}
	return b.payer
}

// daysOf are the three sums of a day that a run's money is part of.
func (t *tx) daysOf(m *meter, day workspace.Day) *[3]*sums {
	p := t.payerOf(m.Workspace, m.User)
	if p.day != day || p.days[0] == nil {
		p.day, p.days = day, [3]*sums{
			t.sums(ofCluster, "", "", day), t.sums(ofWorkspace, m.Workspace, "", day), t.sums(ofUser, m.Workspace, m.User, day),
		}
	}
	return &p.days
}

// setAside reserves an amount in all of a run's books, or gives a negative one back.
func (t *tx) setAside(m *meter, day workspace.Day, generation uint64, amount int64) {
	for _, s := range t.daysOf(m, day) {
		s.Reserved += amount
	}
	a := t.account(m.Workspace)
	a.Reserved += amount
	if generation != 0 && generation == a.Generation {
		a.Held += amount
	}
}

// spend turns a reserved amount into a spent one, and writes it into the ledger.
func (t *tx) spend(m *meter, from slice, day workspace.Day, amount, ms int64) {
	reserved := m.cost(m.Charged, m.Charged+ms)
	for _, s := range t.daysOf(m, from.Day) {
		s.Reserved -= reserved
	}
	for _, s := range t.daysOf(m, day) {
		s.Spent += amount
	}
	a := t.account(m.Workspace)
	a.Reserved -= reserved
	a.Spent += amount
	if from.Generation != 0 && from.Generation == a.Generation {
		a.Held -= reserved
		a.Accrued += amount
	}
	if m.Row.Day != day || m.Row.Generation != from.Generation {
		t.turnRow(m, day, from.Generation)
	}
	m.Row.Amount += amount
	m.Row.MS += ms
}
