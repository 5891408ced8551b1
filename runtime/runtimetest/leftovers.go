package runtimetest

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// leavesNothing fails a test that leaves the host with more, or less, than it
// found there.
func leavesNothing[L any](t *testing.T, leftovers func(*testing.T) L) {
	t.Helper()
	before := leftovers(t)
	t.Cleanup(func() { // after those of the test
		if diff := cmp.Diff(before, leftovers(t)); diff != "" {
			t.Errorf("left on the host (-before +after):\n%s", diff)
		}
	})
}
