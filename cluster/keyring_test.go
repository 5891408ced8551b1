package cluster

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"

	"berth/workspace"
)

func ring(t *testing.T, path string) *Cluster {
	t.Helper()
	keys, err := openKeyring(path)
	if err != nil {
		t.Fatal(err)
	}
	return &Cluster{keys: keys}
}

func TestSealing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret.key")
	a := ring(t, path)
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("the key file: %v, %v", info.Mode(), err)
	}
	for _, text := range []string{"", "s3cret", strings.Repeat("x", 1<<16)} {
		one, err := a.Seal(workspace.NewSecret(text))
		if err != nil {
			t.Fatal(err)
		}
		two, _ := a.Seal(workspace.NewSecret(text))
		if bytes.Equal(one.Nonce, two.Nonce) || bytes.Equal(one.Sealed, two.Sealed) {
			t.Error("a secret sealed twice looks the same")
		}
		if text != "" && bytes.Contains(one.Sealed, []byte(text)) {
			t.Error("a sealed secret shows its text")
		}
		got, err := ring(t, path).Open(one) // as after a restart
		if err != nil || got.Reveal() != text {
			t.Errorf("opened: %q, %v", got.Reveal(), err)
		}
		for name, broken := range map[string]workspace.Sealed{
			"sealed": {KeyID: one.KeyID, Nonce: one.Nonce, Sealed: flip(one.Sealed, 0)},
			"nonce":  {KeyID: one.KeyID, Nonce: flip(one.Nonce, 0), Sealed: one.Sealed},
			"short":  {KeyID: one.KeyID, Nonce: one.Nonce[1:], Sealed: one.Sealed},
		} {
			if _, err := a.Open(broken); err == nil {
				t.Errorf("a secret with a changed %s opened", name)
			}
		}
		one.KeyID = "nobody"
		if _, err := a.Open(one); err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "nobody") {
			t.Errorf("a missing key gave %v", err)
		}
	}
}

func TestNewKeySealsOldKeysOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret.key")
	old, err := ring(t, path).Seal(workspace.NewSecret("s3cret"))
	if err != nil {
		t.Fatal(err)
	}
	text, _ := os.ReadFile(path)
	var file keyFile
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	file.Keys = append(file.Keys, sealingKey{ID: "second", Key: bytes.Repeat([]byte{7}, sealingKeyLen)})
	text, _ = json.Marshal(file)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	c := ring(t, path)
	if got, err := c.Open(old); err != nil || got.Reveal() != "s3cret" {
		t.Errorf("the old key: %v", err)
	}
	if s, _ := c.Seal(workspace.NewSecret("x")); s.KeyID != "second" {
		t.Errorf("sealed with %s", s.KeyID)
	}
}

func TestBadKeyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret.key")
	for _, text := range []string{"", "{}", `{"keys":[{"id":"a","key":"c2hvcnQ="}]}`, "hunter2"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := openKeyring(path)
		if err == nil || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q gave %v", text, err)
		}
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := openKeyring(path); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a file that others may read gave %v", err)
	}
}

func TestLoadNodeID(t *testing.T) {
	dir := t.TempDir()
	first, err := LoadNodeID(dir)
	if err != nil || first == "" {
		t.Fatal(first, err)
	}
	if again, err := LoadNodeID(dir); err != nil || again != first {
		t.Errorf("the second time: %q, %v", again, err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) != 1 {
		t.Errorf("files: %v", left)
	}
	if err := os.WriteFile(filepath.Join(dir, "node-id"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadNodeID(dir); err == nil || !strings.Contains(err.Error(), "node-id") {
		t.Errorf("a damaged file gave %v", err)
	}
}

func TestRaftLogger(t *testing.T) {
	var out bytes.Buffer
	log := raftLogger(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelInfo})))
	log.Info("progress")
	log.With("term", 3).Named("snapshot").Warn("slow", "servers", hclog.Fmt("%d of %d", 1, 2), "odd")
	if got := out.String(); strings.Contains(got, "progress") ||
		!strings.Contains(got, `level=INFO msg=slow from=raft.snapshot term=3 servers="1 of 2"`) {
		t.Errorf("logged: %s", got)
	}
}
