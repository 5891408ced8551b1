package state

import (
	"fmt"
	"testing"
	"time"

	"berth/workspace"
)

// Outcomes that are kept long must not keep the search from those that are over.
func TestOldOutcomesGoFromAmongYoungOnes(t *testing.T) {
	s := New()
	now := time.Unix(1_800_000_000, 0)
	index := uint64(0)
	put := func(by Caller) {
		t.Helper()
		index++
		by.Role = workspace.RoleSystem
		entry, err := Encode(&InitCluster{ID: "c", Name: "c", Workspace: "w"}, by, now)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Apply(index, entry); err != nil {
			t.Fatal(err)
		}
	}
	for n := range 100 { // kept for a day
		put(Caller{Idem: &IdempotencyKey{Scope: fmt.Sprintf("%03d", n), Body: "b"}})
	}
	put(Caller{RequestID: "zzz"}) // kept for 10 minutes, behind the others
	now = now.Add(requestsKept + time.Minute)
	for range 100/sweptPerEntry + 2 {
		put(Caller{})
	}
	txn := s.db.Load().mem.Txn(false)
	if outcomes.get(txn, "id", "zzz") != nil {
		t.Error("an outcome whose time is over is still kept")
	}
	if outcomes.get(txn, "id", "key:042") == nil {
		t.Error("an outcome was forgotten before its time")
	}
}

// A view tells the outcome that a proposal after it would get.
func TestViewOutcome(t *testing.T) {
	w := newWorld(t)
	w.play("init\ncreate i1 idem=s/b")
	w.play("delete i1")
	idem := IdempotencyKey{Scope: "s", Body: "b"}
	if res, ok := w.store.View().Outcome(idem); !ok || !res.Replay || res.Object != "i1" || res.Err != nil {
		t.Errorf("the outcome of a create: %+v, %v", res, ok)
	}
	if res, ok := w.store.View().Outcome(IdempotencyKey{Scope: "s", Body: "other"}); !ok || res.Err == nil || res.Err.Code != workspace.CodeKeyReused {
		t.Errorf("the key with another request: %+v, %v", res, ok)
	}
	if res, ok := w.store.View().Outcome(IdempotencyKey{Scope: "new", Body: "b"}); ok {
		t.Errorf("an unused key: %+v", res)
	}
	w.play("clock 25h\ncreate i2")
	if res, ok := w.store.View().Outcome(idem); ok {
		t.Errorf("after a day: %+v", res)
	}
}
