package state

import "berth/workspace"

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
