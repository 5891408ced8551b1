package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"berth/test/onenode"
)

// On a terminal the statuses have colours, unless nobody wants them.
func TestDoctorOnATerminal(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "s")
	server, err := onenode.Start(socket, filepath.Join(dir, "r"), onenode.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	if err := os.Chmod(socket, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("BERTH_SOCKET", socket)
	t.Setenv("BERTH_ADDR", "http://host2:7180") // isn't asked
	args := []string{"doctor", "--data-dir", dir, "--subnet", "198.51.100.0/24"}
	if got := onTerminal(t, args...); !strings.Contains(got, "\x1b[32mok\x1b[0m  ") {
		t.Errorf("it shows\n%q", got)
	}
	t.Setenv("NO_COLOR", "1")
	if got := onTerminal(t, args...); strings.Contains(got, "\x1b") {
		t.Errorf("with NO_COLOR it shows\n%q", got)
	}
}
