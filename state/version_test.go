package state

import (
	"strings"
	"testing"
	"time"

	"berth/workspace"
)

// A binary that doesn't have what the cluster moves on to stops there.
func TestVersionBeyondThisBinary(t *testing.T) {
	entry, err := Encode(&RaiseVersion{To: Version + 1}, Caller{Role: workspace.RoleSystem}, time.Unix(0, 0))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := New().Apply(1, entry); err == nil || !strings.Contains(err.Error(), "newer berthd") {
		t.Errorf("it goes on: %v", err)
	}
}
