package state

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"berth/gpu"
	"berth/workspace"
)

// line is one command of a transcript: a verb, objects, and key=value pairs. A
// key without a value is a flag, one given twice a list; "…" holds blanks.
type line struct {
	t     testing.TB
	text  string
	words []string
	args  map[string][]string
}

func parseLine(t testing.TB, text string) *line {
	l := &line{t: t, text: text, args: map[string][]string{}}
	for _, w := range splitWords(text) {
		if k, v, ok := strings.Cut(w, "="); ok {
			l.args[k] = append(l.args[k], v)
		} else {
			l.words = append(l.words, w)
		}
	}
	return l
}

func splitWords(text string) []string {
	quoted := false
	words := strings.FieldsFunc(text, func(r rune) bool {
		if r == '"' {
			quoted = !quoted
		}
		return r == ' ' && !quoted
	})
	for i := range words {
		words[i] = strings.ReplaceAll(words[i], `"`, "")
	}
	return words
}

// word gives the n-th word after the verb.
func (l *line) word(n int) string {
	if n+1 >= len(l.words) {
		return ""
	}
	return l.words[n+1]
}

func (l *line) has(flag string) bool {
	for i, w := range l.words {
		if i > 0 && w == flag {
			return true
		}
	}
	return false
}

// get takes a key's value; all takes all of them.
func (l *line) get(key, otherwise string) string {
	if v := l.all(key); len(v) > 0 {
		return v[0]
	}
	return otherwise
}

func (l *line) all(key string) []string {
	v := l.args[key]
	delete(l.args, key)
	return v
}

func (l *line) number(key string, otherwise int64) int64 {
	return number(l.t, l.get(key, strconv.FormatInt(otherwise, 10)))
}

func number(t testing.TB, text string) int64 {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func ptr[T any](v T) *T { return &v }

// command carries out one line. The verbs are those of the switches below; by=
// says who asks: root (a cluster admin, the default), system, node:ID, or a user.
func (w *world) command(l *line) (out string) {
	defer func() {
		if len(l.args) > 0 {
			w.t.Fatalf("%s: what is %v?", l.text, l.args)
		}
	}()
	if out, ok := w.show(l); ok {
		return out
	}
	if out, ok := w.showMoney(l); ok {
		if out == "" {
			out = "nothing\n"
		}
		return out
	}
	by := l.caller()
	switch l.words[0] {
	case "clock": // moves the leader's clock, backwards too
		d, err := time.ParseDuration(l.word(0))
		if err != nil {
			w.t.Fatal(err)
		}
		w.clock = w.clock.Add(d)
		return w.clock.Format(time.RFC3339) + "\n"
	case "restore": // from a snapshot of itself
		w.store = restored(w.t, w.store)
		return fmt.Sprintf("at index %d\n", w.store.View().Index())
	case "again": // the last index once more, as after a restart
		w.index--
		return w.propose(&RaiseVersion{To: Version}, Caller{Role: workspace.RoleSystem})
	case "member", "switch": // what no command does yet is written straight into the tables
		w.poke(l)
		return "ok\n"
	}
	cmd := w.build(l)
	w.stampPlaces(cmd, l)
	return w.propose(cmd, by)
}

func (l *line) caller() Caller {
	c := Caller{RequestID: l.get("req", ""), Principal: l.get("by", "root"), Role: workspace.RoleMember}
	switch c.Principal {
	case "root":
		c.Role = workspace.RoleClusterAdmin
	case "system":
		c.Role = workspace.RoleSystem
	}
	if slices.Contains([]string{"init", "place", "raise-version", "sweep", "install", "renew", "expire", "unreachable", "reachable", "fold"}, l.words[0]) {
		if c.Principal == "root" {
			c.Principal, c.Role = "system", workspace.RoleSystem
		}
	}
	if node, ok := strings.CutPrefix(c.Principal, "node:"); ok {
		c.Principal, c.Role = node, workspace.RoleNode
	}
	if l.words[0] == "report" && c.Principal == "root" {
		c.Principal, c.Role = l.word(0), workspace.RoleNode
	}
	if idem := l.get("idem", ""); idem != "" {
		scope, body, _ := strings.Cut(idem, "/")
		c.Idem = &IdempotencyKey{Scope: scope, Body: body}
	}
	return c
}

func (w *world) build(l *line) Command {
	switch l.words[0] {
	case "init":
		return &InitCluster{ID: l.get("id", "c1"), Name: "berth", Workspace: "w0",
			Templates: []workspace.Template{{Name: "shell", Image: "shell:latest", Kind: workspace.KindInteractive}}}
	case "raise-version":
		return &RaiseVersion{To: uint64(number(w.t, l.word(0)))}
	case "workspace", "update", "archive":
		return w.buildWorkspace(l)
	case "template":
		return &PutTemplate{Template: l.template()}
	case "install":
		return &InstallTemplates{Templates: []workspace.Template{l.template()}}
	case "delete-template":
		return &DeleteTemplate{Name: l.word(0)}
	case "create":
		return w.buildCreate(l)
	case "start":
		return &StartInstance{ID: l.word(0), Run: l.get("run", ""), ImageDigest: l.get("digest", ""), Suggestion: l.suggestion(), FreshVolume: l.has("fresh")}
	case "stop":
		return &StopInstance{ID: l.word(0)}
	case "restart":
		return &RestartInstance{ID: l.word(0), Run: l.get("run", ""), Suggestion: l.suggestion()}
	case "delete":
		return &DeleteInstance{ID: l.word(0)}
	case "place":
		c := &PlaceRuns{}
		for _, word := range l.words[1:] { // r1@n1/GPU-0
			run, on, _ := strings.Cut(word, "@")
			c.Placements = append(c.Placements, Placement{Run: run, Suggestion: *parseOn(l.t, on)})
		}
		if s := l.suggestion(); s != nil {
			c.Placements[0].Suggestion = *s
		}
		return c
	case "report":
		return w.buildReport(l)
	case "remove-volume":
		return &RemoveVolume{ID: l.word(0)}
	case "keep-volume":
		return &KeepVolume{ID: l.word(0), Policy: l.get("policy", "")}
	case "sweep":
		return &Sweep{}
	case "login":
		return &SetRegistry{Host: l.word(0), Username: l.get("user", "me"), Password: workspace.Sealed{Sealed: []byte(l.get("password", "sealed"))}}
	case "logout":
		return &RemoveRegistry{Host: l.word(0)}
	}
	if c := w.buildMoney(l); c != nil {
		return c
	}
	w.t.Fatalf("%s: no such command", l.text)
	return nil
}

func (l *line) template() workspace.Template {
	return workspace.Template{Name: l.word(0), Image: l.get("image", "demo:latest"), Kind: workspace.RunKind(l.get("kind", "interactive")),
		StoragePolicy: l.get("policy", ""), RestartPolicy: l.restartPolicy()}
}

// restartPolicy is restart=MODE or restart=MODE:MAX.
func (l *line) restartPolicy() workspace.RestartPolicy {
	mode, most, _ := strings.Cut(l.get("restart", ""), ":")
	p := workspace.RestartPolicy{Mode: workspace.RestartMode(mode)}
	if most != "" {
		p.MaxRestarts = int(number(l.t, most))
	}
	return p
}

func (w *world) buildWorkspace(l *line) Command {
	switch l.words[0] {
	case "workspace":
		c := &CreateWorkspace{ID: l.word(0), Slug: l.get("slug", ""), Plan: workspace.Plan(l.get("plan", "pro"))}
		if name := l.get("name", ""); name != "" {
			c.Name = &name
		}
		return c
	case "archive":
		return &ArchiveWorkspace{ID: l.word(0)}
	}
	c := &UpdateWorkspace{ID: l.word(0), IfIndex: uint64(l.number("if-index", 0)), ClearName: l.has("no-name")}
	if v := l.all("name"); v != nil {
		c.Name = &v[0]
	}
	if v := l.all("max"); v != nil {
		c.MaxConcurrentRuns = ptr(int(number(l.t, v[0])))
	}
	if v := l.all("settings"); v != nil {
		c.Settings = []byte(strings.ReplaceAll(v[0], "'", `"`))
	}
	l.limits(c)
	if v := l.all("keep-days"); v != nil {
		c.Retention = &workspace.Retention{Unit: "days", Value: int(number(l.t, v[0]))}
	}
	return c
}

func (w *world) buildCreate(l *line) Command {
	id, start := l.word(0), l.args["run"] != nil
	var until time.Time
	if v := l.get("until", ""); v != "" {
		until = timeOf(l.t, v)
	}
	return &CreateInstance{
		ID: id, Workspace: l.get("in", "w0"), Project: l.get("project", ""), Name: l.get("name", id), Template: workspace.TemplateRef{Name: l.get("template", "shell")},
		Kind: workspace.RunKind(l.get("kind", "interactive")),
		Resources: workspace.Resources{
			GPUCount: int(l.number("gpus", 0)), GPUShare: int(l.number("share", 0)), GPUType: l.get("type", ""),
			GPUMemoryMiB: l.number("gpu-memory", 0), CPUMilli: l.number("cpu", 1000), MemoryMiB: l.number("memory", 1024),
			StorageMiB: l.number("storage", 100),
		},
		Spec: workspace.RunSpec{Image: "shell:latest", ImageDigest: "sha256:1", Stoppable: !l.has("unstoppable"),
			VolumePath: l.get("home", ""), MaxDuration: l.number("most", 0)},
		ToBeDeletedAt: until, FailoverAfter: int(l.number("failover", 0)),
		StoragePolicy: l.get("policy", ""), RestartPolicy: l.restartPolicy(), Volume: l.get("volume", ""),
		Start: start, Run: l.get("run", ""), Suggestion: l.suggestion(),
	}
}

// suggestion is on=NODE/GPU,GPU:milli (stamp: with the stamp of the node's latest
// message, which a first lease answers), or why=reason|message, or
// impossible=reason|message; nil without any of them.
func (l *line) suggestion() *Suggestion {
	if v := l.get("on", ""); v != "" {
		return parseOn(l.t, v)
	}
	for _, key := range []string{"why", "impossible"} {
		if v := l.get(key, ""); v != "" {
			reason, message, _ := strings.Cut(v, "|")
			return &Suggestion{Reason: reason, Message: message, Impossible: key == "impossible"}
		}
	}
	return nil
}

func parseOn(t testing.TB, on string) *Suggestion {
	node, gpus, _ := strings.Cut(on, "/")
	s := &Suggestion{Node: node}
	for g := range strings.SplitSeq(gpus, ",") {
		if g == "" {
			continue
		}
		uuid, milli, ok := strings.Cut(g, ":")
		if !ok {
			milli = "1000"
		}
		s.Devices = append(s.Devices, workspace.Allotment{UUID: uuid, Milli: int(number(t, milli))})
	}
	return s
}

// buildReport: facts, gpus=UUID[:TYPE[:MiB[:UNUSABLE]]][<PARENT],… ready not-ready=reason
// run=ID[@epoch]:phase released=GPU/run[@epoch] stuck=… orphans=container:GPU
// health=GPU:health:reason boot= t=
func (w *world) buildReport(l *line) Command {
	r := workspace.Report{Node: l.word(0), Stamp: w.stamp(l)}
	if l.has("facts") {
		r.Facts = &workspace.NodeFacts{Name: "host-" + r.Node, BootID: r.Stamp.BootID, CPUMilli: l.number("cpu", 16000),
			MemoryMiB: l.number("memory", 65536), StorageMiB: l.number("storage", 10000),
			Sharing: strings.TrimPrefix(l.get("sharing", "timeslice"), "none")}
	}
	if v := l.all("gpus"); v != nil {
		r.Devices = parseInventory(l.t, v[0])
	}
	if l.has("ready") {
		r.Ready = &workspace.Readiness{Ready: true, Reason: "ready", Message: "it takes work"}
	}
	if why := l.get("not-ready", ""); why != "" {
		r.Ready = &workspace.Readiness{Reason: why, Message: "containerd doesn't answer"}
	}
	for _, v := range l.all("run") {
		r.Runs = append(r.Runs, w.parseRunReport(l, v))
	}
	for _, key := range []string{"released", "stuck"} {
		for _, v := range l.all(key) {
			device, run, _ := strings.Cut(v, "/")
			id, epoch := w.epochOf(run)
			rel := workspace.Release{Device: device, Run: id, Epoch: epoch, Stuck: key == "stuck"}
			if rel.Stuck {
				rel.Message = "its process can't be killed"
			}
			r.Released = append(r.Released, rel)
		}
	}
	if v := l.all("orphans"); v != nil {
		r.Orphans = ptr([]workspace.Orphan{})
		for _, v := range v {
			if c, gpus, ok := strings.Cut(v, ":"); ok {
				*r.Orphans = append(*r.Orphans, workspace.Orphan{Container: c, Devices: strings.Split(gpus, ","), Reason: "unknown"})
			}
		}
	}
	for _, v := range l.all("volume") { // ID:made, ID:gone, or ID:why it can't be purged yet
		id, what, _ := strings.Cut(v, ":")
		rep := workspace.VolumeReport{ID: id, Made: what == "made", Gone: what == "gone"}
		if !rep.Made && !rep.Gone {
			rep.Message = what
		}
		r.Volumes = append(r.Volumes, rep)
	}
	r.Expired = l.all("expired")
	for _, v := range l.all("health") {
		p := strings.SplitN(v+"::", ":", 4)
		r.Health = append(r.Health, workspace.DeviceHealth{Device: p[0], Health: gpu.Health(p[1]), Reason: p[2],
			Message: strings.TrimRight(p[2], ":")})
	}
	return &Report{r}
}

// stamp of a node's next report: a second after its last, unless the line says
// another boot or time (in seconds).
func (w *world) stamp(l *line) workspace.Stamp {
	s := w.boots[l.word(0)]
	s.BoottimeMS += 1000
	if boot := l.get("boot", ""); boot != "" {
		s = workspace.Stamp{BootID: boot, BoottimeMS: 1000}
	}
	if s.BootID == "" {
		s.BootID = "boot1"
	}
	late := l.args["t"] != nil
	s.BoottimeMS = 1000 * l.number("t", s.BoottimeMS/1000)
	if !late {
		w.boots[l.word(0)] = s
	}
	return s
}

func parseInventory(t testing.TB, text string) *gpu.Inventory {
	inv := &gpu.Inventory{Source: "simulated"}
	for i, g := range strings.Split(text, ",") {
		if g == "none" {
			break
		}
		g, parent, _ := strings.Cut(g, "<")
		p := strings.Split(g, ":")
		p = append(p, []string{"", "A100-SXM4-80GB", "81920", ""}[min(len(p), 4):]...)
		inv.Devices = append(inv.Devices, gpu.Info{UUID: p[0], Index: i, Type: p[1], Vendor: "NVIDIA",
			MemoryMiB: number(t, p[2]), Unusable: p[3], Parent: parent})
	}
	return inv
}

func (w *world) parseRunReport(l *line, v string) workspace.RunReport {
	who, phase, _ := strings.Cut(v, ":")
	id, epoch := w.epochOf(who)
	r := workspace.RunReport{Run: id, Epoch: epoch, Phase: workspace.Phase(phase),
		Reason: l.get("reason", phase), Message: l.get("message", "it is "+phase), OOM: l.has("oom")}
	if code := l.get("exit", ""); code != "" {
		r.ExitCode = ptr(int(number(l.t, code)))
	}
	if lived := l.get("lived", ""); lived != "" {
		r.LivedMS = millis(l.t, lived)
	}
	if port := l.number("port", 0); port != 0 {
		r.Access = []workspace.AccessInfo{{Type: "NODE_PORT", Protocol: "HTTP", Host: "127.0.0.1", Port: int(port)}}
	}
	return r
}

// epochOf splits run@incarnation.index; without an epoch it is the run's own.
func (w *world) epochOf(text string) (id string, e gpu.Epoch) {
	id, epoch, ok := strings.Cut(text, "@")
	if !ok {
		if run := w.store.View().Run(id); run != nil {
			return id, run.Epoch
		}
		return id, e
	}
	if _, err := fmt.Sscanf(epoch, "%d.%d", &e.Incarnation, &e.Index); err != nil {
		w.t.Fatal(err)
	}
	return id, e
}
