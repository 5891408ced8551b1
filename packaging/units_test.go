package packaging_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func text(t *testing.T, file string) string {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// TestUnitsArePackaged: each unit is in the package, and a purge ends it.
func TestUnitsArePackaged(t *testing.T) {
	units, err := filepath.Glob("systemd/*.s*")
	if err != nil || len(units) < 4 {
		t.Fatalf("units: %v, %v", units, err)
	}
	for _, file := range units {
		unit := filepath.Base(file)
		if !strings.Contains(text(t, "nfpm.yaml"), "dst: /lib/systemd/system/"+unit+"}") {
			t.Errorf("%s isn't in the package", unit)
		}
		if !strings.Contains(text(t, "deb/postrm"), unit) {
			t.Errorf("%s goes on after a purge", unit)
		}
	}
}

// TestGuardUnit: the settings without which it isn't a guard.
func TestGuardUnit(t *testing.T) {
	unit := text(t, "systemd/berth-guard.service")
	for _, line := range []string{
		"Type=notify", "Restart=always", "StartLimitIntervalSec=0", "OOMScoreAdjust=-1000", "LimitMEMLOCK=infinity",
		"ExecStart=/usr/bin/berth-helper guard --dir /run/berth/guard --socket /run/berth/guard/guard.sock",
	} {
		if !strings.Contains(unit, "\n"+line+"\n") {
			t.Errorf("it has no %s", line)
		}
	}
	for _, line := range strings.Split(unit, "\n") {
		for _, bad := range []string{"Private", "Protect", "ReadOnly", "ReadWrite", "Inaccessible", "RuntimeDirectory", "BindsTo", "PartOf", "Requires", "Delegate"} {
			if strings.HasPrefix(line, bad) {
				t.Errorf("%s: its mounts are the host's, its directory stays, and nobody's end is its own", line)
			}
		}
	}
	if script := text(t, "deb/postinst"); !strings.Contains(script, "try-restart berth-guard.service") {
		t.Error("an upgrade leaves the old guard")
	}
	if !strings.Contains(text(t, "systemd/berthd.service"), "Wants=network-online.target berthd.socket berth-guard.service") {
		t.Error("berthd's unit doesn't want it")
	}
}
