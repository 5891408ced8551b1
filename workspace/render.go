package workspace

import (
	"cmp"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

var (
	variableName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,62}$`)
	envName      = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	placeholder  = regexp.MustCompile(`\$\{([a-z][a-z0-9_]*)\}`)
)

// Validate checks that a template can be rendered: names, types, options,
// defaults, and that every ${name} is one of its variables.
func (t *Template) Validate() error {
	if err := ValidateLabel("name", t.Name, MaxSlug); err != nil {
		return err
	}
	if t.Image == "" {
		return InvalidField("image", "is required: the name of an image, such as demo:latest")
	}
	if t.Kind != KindInteractive && t.Kind != KindJob {
		return InvalidField("kind", "%q is neither interactive nor job", t.Kind)
	}
	if t.StopGrace < 0 || t.StopGrace > MaxStopGrace {
		return InvalidField("stop_grace_seconds", "%d is outside 0 to %d", t.StopGrace, MaxStopGrace)
	}
	if err := validateCount("variables", len(t.Variables), MaxVariables); err != nil {
		return err
	}
	for i := range t.Variables {
		if err := t.Variables[i].validate(); err != nil {
			return err
		}
		if t.variable(t.Variables[i].Name) != &t.Variables[i] {
			return InvalidField("variables."+t.Variables[i].Name, "is there twice")
		}
	}
	for _, e := range t.Env {
		if !envName.MatchString(e.Name) {
			return InvalidField("env", "%q can't be the name of an environment variable", e.Name)
		}
	}
	if err := t.validateTexts(); err != nil {
		return err
	}
	if t.VolumePath != "" && !path.IsAbs(t.VolumePath) {
		return InvalidField("volume_path", "%q must be an absolute path", t.VolumePath)
	}
	if err := cmp.Or(t.validatePorts(), t.RestartPolicy.Validate(), validateMaxDuration(t.MaxDuration)); err != nil {
		return err
	}
	full := t.Resources
	full = (&ResourceRequest{}).Over(full)
	if err := full.Validate(); err != nil {
		return err
	}
	return t.validatePlaceholders()
}

func (t *Template) validateTexts() error {
	unrendered := RunSpec{Image: t.Image, Command: t.Command, Env: t.Env, Ports: t.Ports, VolumePath: t.VolumePath, Probe: t.Probe}
	return cmp.Or(
		validateText("description", t.Description, MaxText),
		validateStoragePolicy(t.StoragePolicy),
		unrendered.validateTexts(),
	)
}

func (v *Variable) validate() error {
	field := "variables." + v.Name
	if !variableName.MatchString(v.Name) {
		return InvalidField("variables", "%q can't be a variable's name: a-z, 0-9 and _, beginning with a letter", v.Name)
	}
	if !slices.Contains([]VariableType{VarString, VarInt, VarBool, VarSecret, VarPublicKey}, v.Type) {
		return InvalidField(field, "type %q is none of string, int, bool, secret, public_key", v.Type)
	}
	if v.Type == VarSecret && (v.Default != "" || len(v.Options) > 0) {
		return InvalidField(field, "a secret can't have a default or options: templates can be read by others")
	}
	if v.Generate && v.Type != VarSecret {
		return InvalidField(field, "only a secret can be generated, it is of type %s", v.Type)
	}
	err := cmp.Or(
		validateText(field, v.Description, MaxText),
		validateCount(field+".options", len(v.Options), MaxOptions),
	)
	for _, option := range v.Options {
		err = cmp.Or(err, validateText(field+".options", option, MaxText))
	}
	if err == nil && v.Default != "" {
		return v.check(v.Default)
	}
	return err
}

// check says whether a value is one this variable can have.
func (v *Variable) check(value string) error {
	field := "template.variables." + v.Name
	if err := validateText(field, value, MaxText); err != nil {
		return err
	}
	switch v.Type {
	case VarInt:
		if _, err := strconv.ParseInt(value, 10, 64); err != nil {
			return InvalidField(field, "%q is not a whole number", value)
		}
	case VarBool:
		if value != "true" && value != "false" {
			return InvalidField(field, "%q is neither true nor false", value)
		}
	case VarPublicKey:
		if !strings.HasPrefix(value, "ssh-") && !strings.HasPrefix(value, "ecdsa-") && !strings.HasPrefix(value, "sk-") {
			return InvalidField(field, "is not an OpenSSH public key (ssh-ed25519 AAAA… name)")
		}
	}
	if len(v.Options) > 0 && !slices.Contains(v.Options, value) {
		return InvalidField(field, "%q is none of %s", value, strings.Join(v.Options, ", "))
	}
	return nil
}

func (t *Template) validatePlaceholders() error {
	uses := 0
	var hidden []string // where a secret's ${name} stays until it is needed
	readable := append(slices.Clone(t.Command), t.Image)
	for _, e := range t.Env {
		hidden = append(hidden, e.Value)
	}
	for _, p := range t.Ports {
		hidden, readable = append(hidden, p.Path), append(readable, p.Number)
	}
	if t.Probe != nil {
		readable = append(readable, t.Probe.HTTPPath, t.Probe.Port)
	}
	for i, text := range append(hidden, readable...) {
		uses += len(placeholder.FindAllStringIndex(text, -1))
		if err := t.validateUses(text, i < len(hidden)); err != nil {
			return err
		}
	}
	if uses > MaxUses {
		return InvalidField("variables", "are used %d times; at most %d", uses, MaxUses)
	}
	return nil
}

func (t *Template) validateUses(text string, secretsToo bool) error {
	for _, m := range placeholder.FindAllStringSubmatch(text, -1) {
		v := t.variable(m[1])
		if v == nil {
			return InvalidField("variables", "${%s} is used, but there is no such variable", m[1])
		}
		if v.Type == VarSecret && !secretsToo {
			return InvalidField("variables."+v.Name, "a secret may stand in env and in the paths of ports only: commands and images can be read by others")
		}
	}
	return nil
}

func (t *Template) variable(name string) *Variable {
	i := slices.IndexFunc(t.Variables, func(v Variable) bool { return v.Name == name })
	if i < 0 {
		return nil
	}
	return &t.Variables[i]
}

// Render makes a run's spec from a template and values for its variables.
// Secrets are given back apart, in clear, for the caller to seal; their ${name}
// stays in the spec and is filled on the node. public holds the other values,
// defaults included. random makes the secrets that are to be generated.
func (t *Template) Render(values map[string]string, random func() string) (spec RunSpec, public map[string]string, secrets map[string]Secret, err error) {
	for name := range values {
		if t.variable(name) == nil {
			return spec, nil, nil, InvalidField("template.variables."+name, "template %s has no such variable; it has %s", t.Name, t.variableNames())
		}
	}
	public, secrets = map[string]string{}, map[string]Secret{}
	for i := range t.Variables {
		v := &t.Variables[i]
		value, given := values[v.Name]
		if !given {
			value = v.Default
		}
		if value == "" && v.Generate {
			value = random()
		}
		if value == "" && v.Required {
			return spec, nil, nil, InvalidField("template.variables."+v.Name, "is required by template %s (%s)", t.Name, v.Type)
		}
		if value != "" {
			if err := v.check(value); err != nil {
				return spec, nil, nil, err
			}
		}
		if v.Type == VarSecret {
			secrets[v.Name] = NewSecret(value)
		} else {
			public[v.Name] = value
		}
	}
	spec = t.fill(public)
	return spec, public, secrets, spec.Validate()
}

func (t *Template) variableNames() string {
	if len(t.Variables) == 0 {
		return "none"
	}
	var names []string
	for _, v := range t.Variables {
		names = append(names, v.Name)
	}
	return strings.Join(names, ", ")
}

func (t *Template) fill(values map[string]string) RunSpec {
	s := RunSpec{
		Image: Expand(t.Image, values), VolumePath: t.VolumePath,
		StopGrace: t.StopGrace, Stoppable: t.Stoppable, MaxDuration: t.MaxDuration,
	}
	for _, arg := range t.Command {
		s.Command = append(s.Command, Expand(arg, values))
	}
	for _, e := range t.Env {
		s.Env = append(s.Env, EnvVar{e.Name, Expand(e.Value, values)})
	}
	for _, p := range t.Ports {
		s.Ports = append(s.Ports, Port{Name: p.Name, Number: Expand(p.Number, values), Protocol: p.Protocol, Path: Expand(p.Path, values)})
	}
	s.Probe = t.fillProbe(values, s.Ports)
	return s
}

// Expand replaces each ${name} that has a value; others stay.
func Expand(text string, values map[string]string) string {
	return placeholder.ReplaceAllStringFunc(text, func(m string) string {
		if v, ok := values[m[2:len(m)-1]]; ok {
			return v
		}
		return m
	})
}
