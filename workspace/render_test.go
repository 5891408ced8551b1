package workspace

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func notebook() *Template {
	return &Template{
		Name: "notebook", Image: "notebook:${tag}", Kind: KindInteractive, StopGrace: 30, Stoppable: true, VolumePath: "/home",
		Command: []string{"serve", "--port=${port}", "$HOME ${NOT_ONE} $port"},
		Env:     []EnvVar{{"TOKEN", "x-${token}"}, {"DEBUG", "${debug}"}},
		Ports:   []Port{{Name: "web", Number: "${port}", Protocol: "HTTP"}},
		Variables: []Variable{
			{Name: "tag", Type: VarString, Default: "v1", Options: []string{"v1", "v2"}},
			{Name: "port", Type: VarInt, Default: "8888"},
			{Name: "debug", Type: VarBool},
			{Name: "token", Type: VarSecret, Required: true},
			{Name: "ssh", Type: VarPublicKey},
		},
	}
}

func TestValidateTemplate(t *testing.T) {
	for what, c := range map[string]struct {
		change func(*Template)
		field  string
	}{
		"good":               {func(*Template) {}, ""},
		"name":               {func(n *Template) { n.Name = "Note Book" }, "name"},
		"no image":           {func(n *Template) { n.Image = "" }, "image"},
		"kind":               {func(n *Template) { n.Kind = KindExternal }, "kind"},
		"grace":              {func(n *Template) { n.StopGrace = -1 }, "stop_grace_seconds"},
		"long grace":         {func(n *Template) { n.StopGrace = MaxStopGrace + 1 }, "stop_grace_seconds"},
		"resources":          {func(n *Template) { n.Resources.GPUCount = -1 }, "resources.gpu_count"},
		"variable's name":    {func(n *Template) { n.Variables[0].Name = "TAG" }, "variables"},
		"variable's type":    {func(n *Template) { n.Variables[0].Type = "float" }, "variables.tag"},
		"variable twice":     {func(n *Template) { n.Variables[1].Name = "tag" }, "variables.tag"},
		"default type":       {func(n *Template) { n.Variables[1].Default = "eighty" }, "template.variables.port"},
		"default option":     {func(n *Template) { n.Variables[0].Default = "v3" }, "template.variables.tag"},
		"default secret":     {func(n *Template) { n.Variables[3].Default = "hunter2" }, "variables.token"},
		"secret options":     {func(n *Template) { n.Variables[3].Options = []string{"hunter2"} }, "variables.token"},
		"env name":           {func(n *Template) { n.Env[0].Name = "A-B" }, "env"},
		"unknown in command": {func(n *Template) { n.Command[0] = "${nothing}" }, "variables"},
		"unknown in env":     {func(n *Template) { n.Env[1].Value = "${nothing}" }, "variables"},
		"unknown in port":    {func(n *Template) { n.Ports[0].Number = "${nothing}" }, "variables"},
		"unknown in image":   {func(n *Template) { n.Image = "${nothing}" }, "variables"},
		"secret in command":  {func(n *Template) { n.Command[0] = "--token=${token}" }, "variables.token"},
		"the same as in env": {func(n *Template) { n.Command[0] = n.Env[0].Value }, "variables.token"},
		"secret in image":    {func(n *Template) { n.Image = "${token}" }, "variables.token"},
		"secret in port":     {func(n *Template) { n.Ports[0].Number = "${token}" }, "variables.token"},
		"zero in text":       {func(n *Template) { n.Description = "a\x00" }, "description"},
		"long text":          {func(n *Template) { n.Description = strings.Repeat("a", MaxText+1) }, "description"},
		"zero in image":      {func(n *Template) { n.Image = "a\x00" }, "image"},
		"line in image":      {func(n *Template) { n.Image = "a\n" }, "image"},
		"zero in command":    {func(n *Template) { n.Command[0] = "a\x00" }, "command"},
		"script":             {func(n *Template) { n.Command[0] = "set -e\n\tserve" }, ""},
		"long argument":      {func(n *Template) { n.Command[0] = strings.Repeat("a", MaxValue+1) }, "command"},
		"many arguments":     {func(n *Template) { n.Command = make([]string, MaxArguments+1) }, "command"},
		"large":              {func(n *Template) { n.Command = slices.Repeat([]string{strings.Repeat("a", MaxValue)}, 9) }, "template"},
		"zero in env":        {func(n *Template) { n.Env[1].Value = "a\x00" }, "env.DEBUG"},
		"long env":           {func(n *Template) { n.Env[1].Value = strings.Repeat("a", MaxValue+1) }, "env.DEBUG"},
		"long env name":      {func(n *Template) { n.Env[1].Name = strings.Repeat("A", MaxName+1) }, "env"},
		"much env":           {func(n *Template) { n.Env = slices.Repeat(n.Env, MaxEnv) }, "env"},
		"zero in port":       {func(n *Template) { n.Ports[0].Name = "a\x00" }, "ports"},
		"zero in protocol":   {func(n *Template) { n.Ports[0].Protocol = "a\x00" }, "ports"},
		"many ports":         {func(n *Template) { n.Ports = slices.Repeat(n.Ports, MaxPorts+1) }, "ports"},
		"zero in volume":     {func(n *Template) { n.VolumePath = "/a\x00" }, "volume_path"},
		"zero in probe":      {func(n *Template) { n.Probe = &Probe{HTTPPath: "/a\x00"} }, "probe.http_path"},
		"many variables":     {func(n *Template) { n.Variables = slices.Repeat(n.Variables, MaxVariables) }, "variables"},
		"zero in variable":   {func(n *Template) { n.Variables[0].Description = "a\x00" }, "variables.tag"},
		"zero in default":    {func(n *Template) { n.Variables[1].Default = "1\x00" }, "template.variables.port"},
		"zero in option":     {func(n *Template) { n.Variables[0].Options[1] = "a\x00" }, "variables.tag.options"},
		"many options":       {func(n *Template) { n.Variables[0].Options = make([]string, MaxOptions+1) }, "variables.tag.options"},
		"variables everywhere": {func(n *Template) {
			n.Command = slices.Repeat([]string{strings.Repeat("${tag}", 10)}, MaxUses/10)
		}, "variables"},
		"dollar without name": {func(n *Template) { n.Command[0] = "$nothing ${UPPER} ${} $" }, ""},
	} {
		n := notebook()
		c.change(n)
		check(t, what, n.Validate(), c.field)
	}
}

func TestRender(t *testing.T) {
	spec, public, secrets, err := notebook().Render(map[string]string{"token": "hunter2", "port": "9999", "tag": "v2"}, func() string { return "random" })
	if err != nil {
		t.Fatal(err)
	}
	want := RunSpec{
		Image: "notebook:v2", Command: []string{"serve", "--port=9999", "$HOME ${NOT_ONE} $port"},
		Env:   []EnvVar{{"TOKEN", "x-${token}"}, {"DEBUG", ""}}, // the secret is filled on the node
		Ports: []Port{{Name: "web", Number: "9999", Protocol: "HTTP"}}, VolumePath: "/home", StopGrace: 30, Stoppable: true,
	}
	if diff := cmp.Diff(want, spec); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]string{"tag": "v2", "port": "9999", "debug": "", "ssh": ""}, public); diff != "" {
		t.Error(diff)
	}
	if len(secrets) != 1 || secrets["token"].Reveal() != "hunter2" {
		t.Errorf("secrets: %d", len(secrets))
	}
}

func TestRenderRefuses(t *testing.T) {
	for what, c := range map[string]struct {
		values map[string]string
		want   string
	}{
		"missing":  {map[string]string{}, "template.variables.token: is required by template notebook (secret)"},
		"unknown":  {map[string]string{"tokn": "x"}, "template.variables.tokn: template notebook has no such variable; it has tag, port, debug, token, ssh"},
		"int":      {map[string]string{"token": "x", "port": "80.5"}, `template.variables.port: "80.5" is not a whole number`},
		"bool":     {map[string]string{"token": "x", "debug": "yes"}, `template.variables.debug: "yes" is neither true nor false`},
		"option":   {map[string]string{"token": "x", "tag": "v9"}, `template.variables.tag: "v9" is none of v1, v2`},
		"key":      {map[string]string{"token": "x", "ssh": "AAAA"}, "template.variables.ssh: is not an OpenSSH public key"},
		"zero":     {map[string]string{"token": "hunter2\x00"}, "template.variables.token: has a zero byte"},
		"rendered": {map[string]string{"token": "x", "ssh": "ssh-" + strings.Repeat("v", MaxText-4)}, "command: 36864 bytes; at most 32768"},
		"too long": {map[string]string{"token": strings.Repeat("hunter2", MaxText)}, "template.variables.token: 28672 bytes; at most 4096"},
	} {
		n := notebook()
		n.Command = append(n.Command, strings.Repeat("${ssh}", 9))
		_, _, _, err := n.Render(c.values, func() string { return "random" })
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v, want %q", what, err, c.want)
		}
	}
	_, _, _, err := (&Template{Name: "bare"}).Render(map[string]string{"a": "b"}, func() string { return "random" })
	if err == nil || !strings.Contains(err.Error(), "it has none") {
		t.Error(err)
	}
	if _, _, _, err := notebook().Render(map[string]string{"token": "x", "ssh": "ssh-ed25519 AAAA me", "debug": "true"}, func() string { return "random" }); err != nil {
		t.Error(err)
	}
}

// TestExpand: a value is put in as it is, also when it looks like a variable;
// what has no value stays.
func TestExpand(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		value := rapid.StringMatching(`[a-z${}]{0,10}`).Draw(t, "value")
		before := rapid.StringMatching(`[a-z$ ]{0,5}`).Draw(t, "before")
		if got := Expand(before+"${a}-${b}", map[string]string{"a": value}); got != before+value+"-${b}" {
			t.Errorf("%q", got)
		}
	})
}
