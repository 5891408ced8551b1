package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// toolDirs are searched after PATH, which has no sbin for many callers.
var toolDirs = []string{"/usr/sbin", "/sbin"}

// findTool gives the path of a program of e2fsprogs.
func findTool(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	for _, dir := range toolDirs {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s isn't on this host: install the package e2fsprogs", name)
}

// runTool runs a program of e2fsprogs. An exit code up to fine is success; any
// other is an error with what the program said.
func runTool(ctx context.Context, fine int, name string, args ...string) error {
	path, err := findTool(name)
	if err != nil {
		return err
	}
	command := exec.CommandContext(ctx, path, args...)
	command.Env = append(os.Environ(), "LC_ALL=C") // says reads the words
	output, err := command.CombinedOutput()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.ExitCode() > 0 && exit.ExitCode() <= fine {
		err = nil
	}
	if err != nil {
		return &toolError{name: name, output: strings.Join(strings.Fields(string(output)), " "), err: err}
	}
	return nil
}

// toolError is a failed run of a program.
type toolError struct {
	name, output string
	err          error
}

func (e *toolError) Error() string {
	if e.output == "" {
		return fmt.Sprintf("%s: %v", e.name, e.err)
	}
	return fmt.Sprintf("%s: %v: %s", e.name, e.err, e.output)
}

func (e *toolError) Unwrap() error { return e.err }

const noSpace = "No space left on device"

// says: the program failed with these words. It has no exit codes for them.
func says(err error, words string) bool {
	var failed *toolError
	return errors.As(err, &failed) && strings.Contains(failed.output, words)
}
