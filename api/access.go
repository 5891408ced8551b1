package api

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"berth/workspace"
)

// accessAnswer is the one answer with secrets in it.
type accessAnswer struct {
	Meta
	Cache string `header:"Cache-Control"`
	Body  *workspace.Access
}

func (a *API) registerAccess(h huma.API) {
	route(h, http.MethodGet, "/instances/{id}/access", "get-access", "The ways into an instance, with the secrets that they take", a.access)
}

// access is for those who see the instance: members of its workspace and
// cluster admins.
func (a *API) access(ctx context.Context, in *instanceInput) (*accessAnswer, error) {
	r, err := a.reader(ctx, in.Reading)
	if err != nil {
		return nil, err
	}
	inst, err := r.instance(in.ID, in.ref())
	if err != nil {
		return nil, err
	}
	secrets, err := a.openSecrets(r, inst)
	if err != nil {
		return nil, err
	}
	out := &workspace.Access{Instance: inst.ID, Name: inst.Name, Status: inst.Status, Ways: []workspace.Way{}, Secrets: secrets}
	if inst.Status == workspace.StatusRunning {
		for _, i := range inst.Access {
			out.Ways = append(out.Ways, wayOf(inst, i, secrets))
		}
	}
	return &accessAnswer{Meta: r.metaOf(inst.ModifyIndex), Cache: "no-store", Body: out}, nil
}

// openSecrets opens the secrets that a way in takes: those that were generated,
// which nobody has seen, and those in the URLs. Others stay sealed.
func (a *API) openSecrets(r *reader, inst *workspace.Instance) (map[string]string, error) {
	open := map[string]string{}
	for name, sealed := range inst.Secrets {
		if !r.generates(inst, name) && !inURL(inst, name) {
			continue
		}
		secret, err := a.cluster.Open(sealed)
		if err != nil {
			return nil, fmt.Errorf("secret %s of instance %s: %w", name, inst.Name, err)
		}
		open[name] = secret.Reveal()
	}
	return open, nil
}

func (r *reader) generates(inst *workspace.Instance, variable string) bool {
	t := r.Template(inst.Template.Name)
	return t != nil && slices.ContainsFunc(t.Variables, func(v workspace.Variable) bool { return v.Name == variable && v.Generate })
}

func inURL(inst *workspace.Instance, variable string) bool {
	uses := func(path string) bool { return strings.Contains(path, "${"+variable+"}") }
	return slices.ContainsFunc(inst.Spec.Ports, func(p workspace.Port) bool { return uses(p.Path) }) ||
		slices.ContainsFunc(inst.Access, func(i workspace.AccessInfo) bool { return uses(i.Path) })
}

func wayOf(inst *workspace.Instance, i workspace.AccessInfo, secrets map[string]string) workspace.Way {
	w := workspace.Way{Name: i.Name, Protocol: i.Protocol, Host: i.Host, Port: i.Port}
	switch i.Protocol {
	case "HTTP", "HTTPS":
		w.URL = strings.ToLower(i.Protocol) + "://" + net.JoinHostPort(i.Host, strconv.Itoa(i.Port)) + workspace.Expand(pagePath(inst, i), escaped(secrets))
	case "SSH":
		w.Command = fmt.Sprintf("ssh -p %d %s", i.Port, i.Host)
	}
	return w
}

// pagePath is the path of a port's page, as its node or else its spec has it.
func pagePath(inst *workspace.Instance, i workspace.AccessInfo) string {
	if at := slices.IndexFunc(inst.Spec.Ports, func(p workspace.Port) bool { return p.Name == i.Name }); i.Path == "" && at >= 0 {
		return inst.Spec.Ports[at].Path
	}
	return i.Path
}

// escaped makes values that stand both in a path and in a query.
func escaped(secrets map[string]string) map[string]string {
	out := map[string]string{}
	for name, value := range secrets {
		out[name] = strings.ReplaceAll(url.QueryEscape(value), "+", "%20")
	}
	return out
}
