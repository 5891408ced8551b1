package state

import (
	"time"

	"berth/workspace"
)

// How long outcomes are kept (docs/domain.md, idempotency).
const (
	requestsKept    = 10 * time.Minute
	idempotencyKept = 24 * time.Hour
	// sweptPerEntry is how many outcomes an entry looks at for old ones. An entry
	// adds two at most.
	sweptPerEntry = 8
)

// outcome is what a request got, kept so that a retry or a second forward of it
// does nothing twice.
type outcome struct {
	ID     string `cbor:"1,keyasint"` // request id, or "key:" and the scope of an idempotency key
	Until  int64  `cbor:"2,keyasint"` // µs since 1970
	Body   string `cbor:"3,keyasint,omitempty"`
	Result Result `cbor:"4,keyasint"`
}

var outcomes = table[outcome]{name: "outcomes", indexes: []index[outcome]{
	{name: "id", key: func(o *outcome) []byte { return key(o.ID) }},
}}

// recall answers a request that this log has seen before.
func (t *tx) recall() (Result, bool) {
	if id := t.env.RequestID; id != "" {
		if o := outcomes.get(t, "id", id); o != nil {
			return o.replay(), true
		}
	}
	if t.env.Idem == nil {
		return Result{}, false
	}
	return recall(t, *t.env.Idem, t.index, t.at)
}

// Outcome is what a request with this key got, if the log has carried one out
// before: what a proposal that follows this view would get too.
func (v View) Outcome(idem IdempotencyKey) (Result, bool) {
	return recall(v.txn, idem, v.Index(), v.At())
}

// recall finds the outcome of an idempotency key at an index and time.
func recall(in reader, idem IdempotencyKey, index uint64, at time.Time) (Result, bool) {
	o := outcomes.get(in, "id", "key:"+idem.Scope)
	switch {
	case o == nil || o.Until < at.UnixMicro():
		return Result{}, false
	case o.Body != idem.Body:
		return Result{Index: index, Replay: true, Err: workspace.Errorf(workspace.CodeKeyReused,
			"this Idempotency-Key was used in the last 24 h with another request: use a new key")}, true
	}
	return o.replay(), true
}

func (o *outcome) replay() Result {
	r := o.Result
	r.Replay = true
	return r
}

// remember keeps the outcome, in the entry that made it.
func (t *tx) remember(r Result) {
	t.forget()
	if r.Replay {
		return
	}
	if id := t.env.RequestID; id != "" {
		outcomes.put(t, &outcome{ID: id, Until: t.at.Add(requestsKept).UnixMicro(), Result: r})
	}
	// A denial is judged anew on a retry; only what can't change is kept.
	if idem := t.env.Idem; idem != nil && !t.anew && (r.Err == nil || r.Err.Code == workspace.CodeInvalid) {
		outcomes.put(t, &outcome{
			ID: "key:" + idem.Scope, Body: idem.Body, Until: t.at.Add(idempotencyKept).UnixMicro(), Result: r,
		})
	}
}

// forget looks at the next few outcomes, round and round through all of them,
// and drops those whose time is over. That needs no index of times, and looks at
// more than an entry adds, so that it comes round.
func (t *tx) forget() {
	var old []*outcome
	looked, next := 0, ""
	for o := range outcomes.from(t, "id", t.position.Sweep) {
		if looked == sweptPerEntry {
			next = o.ID
			break
		}
		if looked++; o.Until < t.at.UnixMicro() {
			old = append(old, o)
		}
	}
	t.position.Sweep = next
	for _, o := range old {
		outcomes.delete(t, o)
	}
}
