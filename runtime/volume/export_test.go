package volume

import "testing"

// WithoutTools hides the programs of e2fsprogs from this process.
func WithoutTools(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	was := toolDirs
	toolDirs = nil
	t.Cleanup(func() { toolDirs = was })
}
