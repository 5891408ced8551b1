package main

import (
	"encoding/json"
	"fmt"
	"io/fs"

	"berth/state"
	"berth/workspace"
)

// builtIns reads the templates that come with berth, each checked.
func builtIns(files fs.FS) ([]workspace.Template, error) {
	names, err := fs.Glob(files, "*.json")
	if err != nil {
		return nil, fmt.Errorf("list the built-in templates: %w", err)
	}
	var all []workspace.Template
	for _, name := range names {
		text, err := fs.ReadFile(files, name)
		if err != nil {
			return nil, fmt.Errorf("read the built-in template %s: %w", name, err)
		}
		t := workspace.DefaultTemplate()
		if err := json.Unmarshal(text, &t); err != nil {
			return nil, fmt.Errorf("read the built-in template %s: %w", name, err)
		}
		if err := t.Validate(); err != nil {
			return nil, fmt.Errorf("the built-in template %s: %w", name, err)
		}
		all = append(all, t)
	}
	return all, nil
}

// outdated are the built-in templates that a cluster doesn't have as they are: it
// has none of the name, an earlier one, or one of its own.
func outdated(view state.View, all []workspace.Template) (some []workspace.Template) {
	for i := range all {
		if old := view.Template(all[i].Name); old == nil || !old.BuiltIn || !state.SameTemplate(old, &all[i]) {
			some = append(some, all[i])
		}
	}
	return some
}
