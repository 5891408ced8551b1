package rules

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// pins are versions with a known trap beside them. raft v1.8.0 brings a
// go-metrics without the package that raft-boltdb imports; the module proxy
// serves go-nvml by exact version only.
var pins = map[string]string{
	"github.com/hashicorp/raft":           "v1.7.3",
	"github.com/hashicorp/raft-boltdb/v2": "v2.3.1",
	"github.com/hashicorp/go-metrics":     "v0.6.0",
	"go.etcd.io/bbolt":                    "v1.5.0",
	"github.com/NVIDIA/go-nvml":           "v0.13.4-0",
}

// modFile is the part of `go mod edit -json` that the pins are about.
type modFile struct {
	Require []struct{ Path, Version string }
	Replace []struct{ Old struct{ Path string } }
}

func TestModulePins(t *testing.T) {
	for _, problem := range checkPins(t, filepath.Join(root, "go.mod")) {
		t.Error(problem)
	}
}

// checkPins compares a go.mod with the pins. go-nvml may be absent: it comes
// with the first reader of a real driver.
func checkPins(t *testing.T, name string) []string {
	t.Helper()
	command := exec.Command("go", "mod", "edit", "-json", name)
	command.Stderr = os.Stderr
	output, err := command.Output()
	if err != nil {
		t.Fatalf("go mod edit -json %s: %v", name, err)
	}
	var mod modFile
	if err := json.Unmarshal(output, &mod); err != nil {
		t.Fatal(err)
	}
	found := map[string]string{"github.com/NVIDIA/go-nvml": pins["github.com/NVIDIA/go-nvml"]}
	for _, require := range mod.Require {
		found[require.Path] = require.Version
	}
	var problems []string
	for module, version := range pins {
		if found[module] != version {
			problems = append(problems, fmt.Sprintf("go.mod: %s is %q, pinned to %s (test/rules says why)", module, found[module], version))
		}
	}
	for _, replace := range mod.Replace {
		if _, pinned := pins[replace.Old.Path]; pinned {
			problems = append(problems, fmt.Sprintf("go.mod: %s is replaced, which undoes its pin", replace.Old.Path))
		}
	}
	return problems
}
