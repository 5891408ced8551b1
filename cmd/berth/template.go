package main

import (
	"context"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"berth/client"
	"berth/workspace"
)

func (a *app) templateCommand() *cobra.Command {
	return noun("template", "What instances are made of", []string{"templates", "tmpl"},
		a.templateLs(), a.templateGet(), a.templateCreate(), a.templateRm())
}

func templateKind(*names) kind[workspace.Template] {
	return kind[workspace.Template]{
		id:   func(t *workspace.Template) string { return t.Name },
		name: func(t *workspace.Template) string { return t.Name },
		columns: []column[workspace.Template]{
			{title: "NAME", cell: func(t *workspace.Template) string { return t.Name }},
			{title: "IMAGE", cell: func(t *workspace.Template) string { return t.Image }},
			{title: "KIND", cell: func(t *workspace.Template) string { return string(t.Kind) }},
			{title: "VARIABLES", cell: func(t *workspace.Template) string {
				return strings.Join(each(t.Variables, variableText), " ")
			}},
			{title: "BUILT IN", cell: func(t *workspace.Template) string { return yesOrNothing(t.BuiltIn) }},
			{title: "AGE", cell: func(t *workspace.Template) string { return age(t.CreatedAt) }},
			{title: "DESCRIPTION", wide: true, cell: func(t *workspace.Template) string { return t.Description }},
		},
		detail: templateDetail,
	}
}

// variableText is a variable's name, with a star when a value is required.
func variableText(v workspace.Variable) string {
	if v.Required && v.Default == "" {
		return v.Name + "*"
	}
	return v.Name
}

func yesOrNothing(b bool) string {
	if b {
		return "yes"
	}
	return ""
}

func templateDetail(t *workspace.Template) []section {
	full := (&workspace.ResourceRequest{}).Over(t.Resources)
	return []section{
		{label: "Name", text: t.Name},
		{label: "Description", text: t.Description},
		{label: "Image", text: t.Image},
		{label: "Command", text: strings.Join(t.Command, " ")},
		{label: "Kind", text: string(t.Kind)},
		{label: "Variables", rows: each(t.Variables, func(v workspace.Variable) []string {
			return []string{variableText(v), string(v.Type), v.Default, strings.Join(v.Options, "|"), v.Description}
		})},
		{label: "Environment", rows: each(t.Env, func(e workspace.EnvVar) []string { return []string{e.Name, e.Value} })},
		{label: "Ports", rows: each(t.Ports, func(p workspace.Port) []string { return []string{p.Name, p.Number, p.Protocol} })},
		{label: "Volume path", text: t.VolumePath},
		{label: "Resources", text: resourcesText(&full)},
		{label: "Stoppable", text: strconv.FormatBool(t.Stoppable)},
		{label: "Stop grace", text: strconv.Itoa(t.StopGrace) + "s"},
		{label: "Storage policy", text: t.StoragePolicy},
		{label: "Built in", text: yesOrNothing(t.BuiltIn)},
		{label: "Created", text: moment(t.CreatedAt)},
		{label: "Updated", text: moment(t.UpdatedAt)},
	}
}

func (a *app) templateLs() *cobra.Command {
	return lsVerb(a, cobra.Command{
		Short:   "List templates; a star marks variables that need a value",
		Example: `  berth template ls`,
	}, source[workspace.Template]{
		fetch: func(ctx context.Context, cl *client.Client) ([]workspace.Template, error) {
			return all(ctx, cl.Templates, client.ListOptions{})
		},
		kind: templateKind,
	})
}

func (a *app) templateGet() *cobra.Command {
	return getVerb(a, cobra.Command{
		Use:   "get NAME",
		Short: "Show one template and its variables",
		Example: `  berth template get demo
  berth template get demo -o yaml >mine.yaml`,
		Args:              takes("NAME"),
		ValidArgsFunction: a.completeOne(templateNames),
	}, func(ctx context.Context, cl *client.Client, name string) (*workspace.Template, error) {
		return cl.Template(ctx, name)
	}, templateKind)
}

func (a *app) templateCreate() *cobra.Command {
	var file string
	var replace bool
	c := &cobra.Command{
		Use:   "create -f FILE",
		Short: "Make a template from a file",
		Long: `Makes a template from a file, YAML or JSON with the keys of the API; - is standard
input. Without them kind is interactive, stoppable true, stop_grace_seconds 30.
${name} in image, command, env and ports is the value of a variable. Instances
that exist keep what they were made from.`,
		Example: `  berth template create -f - <<EOF
  name: shell
  image: debian:12
  command: [sleep, "${seconds}"]
  variables:
  - {name: seconds, type: int, default: "600"}
  EOF`,
		Args:              takes(),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: a.with(func(c *cobra.Command, cl *client.Client, _ []string) error {
			if file == "" {
				return usagef("%s needs -f FILE: see %s --help", c.CommandPath(), c.CommandPath())
			}
			t := workspace.DefaultTemplate()
			if err := readDocument(file, a.stdin, &t); err != nil {
				return err
			}
			write, word := cl.CreateTemplate, "created"
			if replace {
				write, word = cl.PutTemplate, "written"
			}
			made, err := write(c.Context(), t)
			if err != nil {
				return err
			}
			return did(a, templateKind(nil), made, "template %s %s", made.Name, word)
		}),
	}
	c.Flags().StringVarP(&file, "file", "f", "", "file to read (- is standard input)")
	c.Flags().BoolVar(&replace, "replace", false, "replace a template of that name")
	return c
}

func (a *app) templateRm() *cobra.Command {
	return &cobra.Command{
		Use:               "rm NAME...",
		Aliases:           []string{"delete", "remove"},
		Short:             "Delete templates; instances made from them stay",
		Example:           `  berth template rm shell`,
		Args:              takes("NAME..."),
		ValidArgsFunction: a.complete(templateNames),
		RunE: a.with(func(c *cobra.Command, cl *client.Client, args []string) error {
			for _, name := range args {
				if err := cl.DeleteTemplate(c.Context(), name); err != nil {
					return err
				}
				a.say("template %s deleted", name)
			}
			return nil
		}),
	}
}
