package state

import (
	"bytes"
	"time"

	"berth/workspace"
)

var templates = table[workspace.Template]{name: "templates", indexes: []index[workspace.Template]{
	{name: "id", key: func(t *workspace.Template) []byte { return key(t.Name) }},
}}

// PutTemplate makes or replaces a template. Instances made before keep what
// they were made from.
type PutTemplate struct {
	Template workspace.Template `cbor:"1,keyasint"`
}

// Type is TypePutTemplate.
func (*PutTemplate) Type() Type { return TypePutTemplate }

func (c *PutTemplate) apply(t *tx) error {
	if err := t.needAdmin(); err != nil {
		return err
	}
	if err := c.Template.Validate(); err != nil {
		return err
	}
	if old := templates.get(t, "id", c.Template.Name); old != nil && old.BuiltIn {
		return workspace.Errorf(workspace.CodeConflict, "template %q comes with berth and can't be replaced: use another name", old.Name)
	}
	t.putTemplate(&c.Template, false)
	t.result.Object = c.Template.Name
	t.event(workspace.Event{Type: "template.put", Object: c.Template.Name,
		Message: "template " + c.Template.Name + " written"})
	return nil
}

func (t *tx) putTemplate(from *workspace.Template, builtIn bool) {
	n := *from
	n.BuiltIn, n.CreatedAt, n.UpdatedAt, n.ModifyIndex = builtIn, t.at, t.at, t.index
	if old := templates.get(t, "id", n.Name); old != nil {
		n.CreatedAt = old.CreatedAt
	}
	templates.put(t, &n)
}

// DeleteTemplate forgets a template; instances made from it stay.
type DeleteTemplate struct {
	Name string `cbor:"1,keyasint"`
}

// Type is TypeDeleteTemplate.
func (*DeleteTemplate) Type() Type { return TypeDeleteTemplate }

func (c *DeleteTemplate) apply(t *tx) error {
	if err := t.needAdmin(); err != nil {
		return err
	}
	old := templates.get(t, "id", c.Name)
	switch {
	case old == nil:
		return workspace.Errorf(workspace.CodeNotFound, "there is no template %q", c.Name)
	case old.BuiltIn:
		return workspace.Errorf(workspace.CodeConflict, "template %q comes with berth and can't be deleted", c.Name)
	}
	templates.delete(t, old)
	t.result.Object = c.Name
	t.event(workspace.Event{Type: "template.deleted", Object: c.Name, Message: "template " + c.Name + " deleted"})
	return nil
}

// InstallTemplates brings the templates that come with berth up to date: the
// leader proposes those that are absent or differ. A user's template that had
// the name first stays.
type InstallTemplates struct {
	Templates []workspace.Template `cbor:"1,keyasint"`
}

// Type is TypeInstallTemplates.
func (*InstallTemplates) Type() Type { return TypeInstallTemplates }

func (c *InstallTemplates) apply(t *tx) error {
	if err := t.needSystem(); err != nil {
		return err
	}
	for i := range c.Templates {
		n := &c.Templates[i]
		if err := n.Validate(); err != nil {
			return err
		}
		old := templates.get(t, "id", n.Name)
		switch {
		case old != nil && !old.BuiltIn:
			t.event(workspace.Event{Type: "template.kept", Object: n.Name, Reason: "name_taken",
				Message: "template " + n.Name + " of this cluster stays; the one of that name that comes with berth isn't installed: delete it to get that one"})
		case old != nil && SameTemplate(old, n):
		default:
			t.putTemplate(n, true)
			t.event(workspace.Event{Type: "template.installed", Object: n.Name, Message: "template " + n.Name + " comes with berth"})
		}
	}
	return nil
}

// SameTemplate reports whether two templates say the same, whenever and by
// whomever they were written.
func SameTemplate(a, b *workspace.Template) bool {
	content := func(t workspace.Template) []byte {
		t.BuiltIn, t.CreatedAt, t.UpdatedAt, t.ModifyIndex = false, time.Time{}, time.Time{}, 0
		return must(encoder.Marshal(t))
	}
	return bytes.Equal(content(*a), content(*b))
}
