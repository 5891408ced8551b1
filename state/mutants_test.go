package state

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// planting are the bugs that can be planted, and the invariants one of which
// TestModel names then.
var planting = []struct {
	bug   mutant
	names string
}{
	{mutantFreeDevice, "I1"}, {mutantConcurrency, "I3"}, {mutantCounter, "I3"}, {mutantChargeTwice, "I5"}, {mutantTruncate, "I5"},
	{mutantKeepReservation, "I4|I5"}, {mutantDayTwice, "I10"}, {mutantPostingDay, "I4|I5|I10"}, {mutantRenewPast, "I4"}, {mutantIdempotency, "I7"},
}

// TestMutants builds the package with each bug planted and requires that TestModel
// fails and names the invariant it breaks.
func TestMutants(t *testing.T) {
	if planted != "" {
		t.Skip("a bug is planted already")
	}
	for _, p := range planting {
		t.Run(string(p.bug), func(t *testing.T) {
			t.Parallel()
			out := runPlanted(t, "mutant_"+string(p.bug))
			if !regexp.MustCompile(`(?m)(^|: )(`+p.names+`): `).MatchString(out) || !strings.Contains(out, "--- FAIL: TestModel") {
				t.Errorf("TestModel with a planted bug must fail and name %s:\n%s", p.names, firstOf(out, 4000))
			}
		})
	}
}

// runPlanted is what TestModel says that was built with a tag: small worlds, and
// the first failure as it is.
func runPlanted(t *testing.T, tag string) string {
	binary := filepath.Join(t.TempDir(), "state.test")
	if out, err := exec.Command("go", "test", "-c", "-vet=off", "-ldflags=-s -w", "-tags="+tag, "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("build with %s: %v\n%s", tag, err, out)
	}
	run := exec.Command(binary, "-test.run=^TestModel$", "-test.timeout=60s", "-rapid.nofailfile", "-rapid.shrinktime=0s")
	run.Env = append(os.Environ(), "GOMAXPROCS=1", "BERTH_TORTURE=")
	run.WaitDelay = time.Second
	out, err := run.CombinedOutput()
	if err == nil {
		t.Errorf("TestModel with %s found nothing", tag)
	}
	return string(out)
}

func firstOf(text string, most int) string { return text[:min(len(text), most)] }

// TestMutantsListed: the tags that plant a bug are the ones that leave it out of
// every other build.
func TestMutantsListed(t *testing.T) {
	off, err := os.ReadFile("mutants_off.go")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("mutant_*.go")
	if err != nil || len(files) != len(planting) {
		t.Errorf("%d bugs are tried, there are the files %v (%v)", len(planting), files, err)
	}
	for _, p := range planting {
		tag := "mutant_" + string(p.bug)
		text, err := os.ReadFile(tag + ".go")
		if err != nil || !strings.HasPrefix(string(text), "//go:build "+tag+"\n") || !strings.Contains(string(off), "!"+tag) {
			t.Errorf("%s: its file isn't built by its tag alone, or mutants_off.go doesn't name it (%v)", tag, err)
		}
	}
}
