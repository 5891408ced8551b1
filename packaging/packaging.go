// Package packaging holds what berth ships beside its binaries and berthd needs
// inside them: the built-in workspace templates.
package packaging

import (
	"embed"
	"io/fs"
)

//go:embed templates/*.json
var files embed.FS

// Templates are the built-in templates: each file is a workspace.Template in
// the form of the native API.
func Templates() fs.FS {
	sub, err := fs.Sub(files, "templates")
	if err != nil {
		panic(err) // the folder is part of the binary
	}
	return sub
}
