package state

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"berth/gpu"
	"berth/workspace"
)

// show carries out the verbs that print the state.
func (w *world) show(l *line) (string, bool) {
	v, id := w.store.View(), l.word(0)
	var out strings.Builder
	switch l.words[0] {
	case "run":
		out.WriteString(showRun(v.Run(id)))
	case "runs":
		for r := range v.AllRuns() {
			out.WriteString(showRun(r))
		}
	case "instance":
		out.WriteString(showInstance(v.Instance(id)))
	case "devices":
		for d := range v.Devices() {
			out.WriteString(showDevice(d))
		}
	case "nodes":
		for n := range v.Nodes() {
			out.WriteString(showNode(n))
		}
	case "workspaces":
		for w := range v.Workspaces("") {
			out.WriteString(showWorkspace(w))
		}
	case "templates":
		for t := range v.Templates("") {
			fmt.Fprintf(&out, "%s image=%s built_in=%v\n", t.Name, t.Image, t.BuiltIn)
		}
	case "volumes":
		for ws := range v.Workspaces("") {
			for x := range v.Volumes(ws.ID, "") {
				out.WriteString(showVolume(x))
			}
		}
	case "purges":
		for _, volume := range v.Purges(id) {
			out.WriteString(volume + "\n")
		}
	case "next-due":
		fmt.Fprintln(&out, v.NextDue().Format(time.RFC3339))
	case "registries":
		for r := range v.Registries() {
			fmt.Fprintf(&out, "%s as %s\n", r.Host, r.Username)
		}
	case "events":
		out.WriteString(w.eventsFrom(l.get("after", "")))
	case "cluster":
		c := v.Cluster()
		fmt.Fprintf(&out, "%s version %d, incarnation %d; index %d at %s\n", c.ID, c.Version, c.Incarnation, v.Index(),
			v.At().Format("2006-01-02T15:04:05Z"))
	default:
		return "", false
	}
	if out.Len() == 0 {
		return "nothing\n", true
	}
	return out.String(), true
}

func showRun(r *workspace.Run) string {
	if r == nil {
		return "no such run\n"
	}
	out := fmt.Sprintf("%s %s, wanted %s", r.ID, r.Phase, r.Desired)
	if r.Node != "" {
		out += " on " + r.Node
		for _, a := range r.Devices {
			out += fmt.Sprintf(" %s:%d", a.UUID, a.Milli)
		}
		out += fmt.Sprintf(" epoch %d.%d", r.Epoch.Incarnation, r.Epoch.Index)
	}
	if r.Replaces != "" {
		out += ", after " + r.Replaces
	}
	if r.ExitCode != nil {
		out += fmt.Sprintf(", exit %d", *r.ExitCode)
	}
	if r.OOM {
		out += ", out of memory"
	}
	if r.Unreleased {
		out += ", unreleased"
	}
	if r.Volume != "" {
		out += ", volume " + r.Volume
	}
	return out + fmt.Sprintf(": %s (%s)\n", r.Message, r.Reason)
}

func showVolume(x *workspace.Volume) string {
	out := fmt.Sprintf("%s of %q on %s, %d MiB, %s", x.ID, x.Name, x.Node, x.SizeMiB, x.Policy)
	for _, flag := range []struct {
		is   bool
		text string
	}{{x.Made, "made"}, {x.Detached, "detached"}, {x.Warned, "warned"}, {x.Purging, "purging"}} {
		if flag.is {
			out += ", " + flag.text
		}
	}
	if !x.PurgeAt.IsZero() {
		out += ", purged at " + x.PurgeAt.Format(time.RFC3339)
	}
	if x.Reason != "" {
		out += fmt.Sprintf(": %s (%s)", x.Message, x.Reason)
	}
	return out + "\n"
}

func showInstance(i *workspace.Instance) string {
	if i == nil {
		return "no such instance\n"
	}
	out := fmt.Sprintf("%s %q of %s %s, wanted %s, run %q", i.ID, i.Name, i.Owner, i.Status, i.Desired, i.Run)
	if i.NextRun != "" {
		out += ", next " + i.NextRun
	}
	if i.Volume != "" {
		out += ", volume " + i.Volume
	}
	for _, a := range i.Access {
		out += fmt.Sprintf(", at %s:%d", a.Host, a.Port)
	}
	return out + fmt.Sprintf(": %s (%s)\n", i.Message, i.Reason)
}

func showDevice(d *gpu.Device) string {
	out := fmt.Sprintf("%s on %s: %s, %s", d.UUID, d.Node, d.State, d.Health)
	if d.Missing {
		out += ", missing"
	}
	if d.Blocked != "" {
		out += ", blocked by " + d.Blocked
	}
	for _, h := range d.Holders {
		out += fmt.Sprintf(", %s has %d", h.Run, h.Milli)
	}
	if d.Reason != "" {
		out += fmt.Sprintf(": %s (%s)", d.Message, d.Reason)
	}
	return out + "\n"
}

func showNode(n *workspace.Node) string {
	out := fmt.Sprintf("%s %q ready=%v: %s (%s)", n.ID, n.Name, n.Ready, n.Message, n.Reason)
	if len(n.Orphans) > 0 {
		out += fmt.Sprintf(", %d orphans", len(n.Orphans))
	}
	return out + "\n"
}

func showWorkspace(w *workspace.Workspace) string {
	name := "without a name"
	if w.Name != nil {
		name = fmt.Sprintf("%q", *w.Name)
	}
	out := fmt.Sprintf("%s %s, %s, plan %s, at most %d runs, changed at %d", w.ID, w.Slug, name, w.Plan,
		w.Limits.MaxConcurrentRuns, w.ModifyIndex)
	if w.IsDefault {
		out += ", default"
	}
	if w.Archived() {
		out += ", archived"
	}
	return out + "\n"
}

// restored is a new store with a snapshot of an old one.
func restored(t testing.TB, old *Store) *Store {
	t.Helper()
	s := New()
	if err := s.Restore(bytes.NewReader(snapshotOf(t, old))); err != nil {
		t.Fatal(err)
	}
	return s
}

func snapshotOf(t testing.TB, s *Store) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := s.Snapshot().Write(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// poke writes what no command writes yet: "member WORKSPACE USER role=…" and
// "switch ID WHAT", which turns something of a cluster, workspace or node on or off.
func (w *world) poke(l *line) {
	v, id, what := w.store.View(), l.word(0), l.word(1)
	txn := w.store.db.Load().mem.Txn(true)
	defer txn.Commit()
	if l.words[0] == "member" {
		members.put(txn, &workspace.Member{Workspace: id, User: what, Role: workspace.Role(l.get("role", "member"))})
		return
	}
	switch what {
	case "cluster-kill-switch":
		c := *v.Cluster()
		c.KillSwitch = !c.KillSwitch
		clusters.put(txn, &c)
	case "kill-switch":
		ws := *v.Workspace(id)
		ws.KillSwitch = !ws.KillSwitch
		workspaces.put(txn, &ws)
	default:
		n := *v.Node(id)
		flag := map[string]*bool{"reachable": &n.Reachable, "cordoned": &n.Cordoned, "draining": &n.Draining}[what]
		*flag = !*flag
		nodes.put(txn, &n)
	}
}
