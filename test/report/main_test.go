package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestReport runs the real go test on a small module, so that the events are
// the go command's own.
func TestReport(t *testing.T) {
	const head = "package x\nimport \"testing\"\n"
	const pass = "func TestFine(t *testing.T) { t.Log(\"quiet\") }\n"
	cases := []struct {
		name, source string
		ok           bool
		want         []string
		wantNot      string
	}{
		{"pass", head + pass, true, []string{"ok  \tx\t", "1 passed, 0 failed, 0 skipped"}, "quiet"},
		{"fail", head + pass + "func TestBad(t *testing.T) { t.Run(\"sub\", func(t *testing.T) { t.Error(\"because\") }) }", false,
			[]string{"because", "FAIL\tx\t", "1 passed, 2 failed, 0 skipped"}, "quiet"},
		{"skip", head + pass + "func TestOff(t *testing.T) { t.Skip(\"not here\") }", false,
			[]string{"not here", "ok  \tx\t", "1 passed, 0 failed, 1 skipped"}, "quiet"},
		{"panic outside a test", head + pass + "func init() { panic(\"early\") }", false, []string{"early", "0 passed"}, ""},
		{"exit outside a test", head + "import \"os\"\n" + pass + "func TestMain(m *testing.M) { m.Run(); os.Exit(3) }", false,
			[]string{"FAIL\tx\t", "1 passed, 0 failed"}, "quiet"},
		{"doesn't build", head + "func TestFine(t *testing.T) { undefined() }", false, []string{"undefined: undefined", "0 passed"}, ""},
		{"no test", "package x", false, []string{"[no tests to run]", "0 passed"}, ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			var out strings.Builder
			ok, err := report(strings.NewReader(goTest(t, c.source)), &out)
			if err != nil {
				t.Fatal(err)
			}
			if ok != c.ok {
				t.Errorf("ok = %v, want %v", ok, c.ok)
			}
			for _, want := range c.want {
				if !strings.Contains(out.String(), want) {
					t.Errorf("no %q in:\n%s", want, &out)
				}
			}
			if c.wantNot != "" && strings.Contains(out.String(), c.wantNot) {
				t.Errorf("unwanted %q in:\n%s", c.wantNot, &out)
			}
		})
	}
}

// goTest gives the events of a module x with one test file. A failing go test
// is what the cases are about, so its exit code doesn't matter.
func goTest(t *testing.T, source string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"go.mod": "module x\n", "x_test.go": source} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	command := exec.Command("go", "test", "-json", "-vet=off", "./...")
	command.Dir = dir
	command.Env = append(os.Environ(), "GOFLAGS=")
	output, _ := command.Output()
	return string(output)
}
