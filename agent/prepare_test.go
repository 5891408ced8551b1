package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"berth/runtime"
	"berth/runtime/runtimetest"
	"berth/workspace"
)

// ready starts an agent with a complete run that gets ready at once.
func (h *host) ready(t *testing.T, edit func(*workspace.Assignment)) *daemon {
	t.Helper()
	h.networks.Serve("run-1", 8888, answer(200))
	if edit == nil {
		edit = func(*workspace.Assignment) {}
	}
	return h.start(t, both(complete, edit))
}

func TestARunGetsItsVolumeAndItsNetwork(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		c := h.cluster
		d := h.ready(t, nil)
		spec := h.created()[0]
		volume := runtime.Mount{Source: filepath.Join(h.volumeDir(t, "volume-1")), Target: "/home/user"}
		if len(spec.Mounts) != 4 || spec.Mounts[0] != volume {
			t.Errorf("mounts: %v", spec.Mounts)
		}
		for _, want := range []string{"HOME=/home/user", "BERTH_RESULTS=/home/user/runs/run-1"} {
			if !slices.Contains(spec.Env, want) {
				t.Errorf("no %s in %v", want, spec.Env)
			}
		}
		if info, err := os.Stat(filepath.Join(volume.Source, "runs", "run-1")); err != nil || !info.IsDir() {
			t.Errorf("the directory of results: %v, %v", info, err)
		}
		if spec.Labels[labelVolume] != "volume-1" || spec.NetNS == "" {
			t.Errorf("labels %v, netns %q", spec.Labels, spec.NetNS)
		}
		network, _ := h.networks.Attached("run-1")
		want := runtime.NetworkSpec{ID: "run-1", Hostname: "env",
			Ports: []runtime.PublishedPort{{HostIP: "127.0.0.1", HostPort: 30000, Container: 8888}}}
		if diff := cmp.Diff(want, network); diff != "" {
			t.Error(diff)
		}
		if r := c.now("run-1"); r.Phase != workspace.PhaseRunning || !r.Volume.Made {
			t.Errorf("%s, volume %+v", r.Phase, r.Volume)
		}
		access := []workspace.AccessInfo{{Type: "NODE_PORT", Protocol: "HTTP", Host: "127.0.0.1", Port: 30000, Name: "page", Path: "/lab?token=${token}"}}
		if diff := cmp.Diff(access, c.now("run-1").access); diff != "" {
			t.Error(diff)
		}
		c.stop("run-1", "user_stop")
		pass(time.Second)
		if r, left := c.now("run-1"), h.left(); len(left) != 0 || r.listed() {
			t.Errorf("left: %v", left)
		}
		d.stop(t)
		c.check(t)
	})
}

func (h *host) volumeDir(t *testing.T, id string) string {
	t.Helper()
	list, err := h.volumes.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range list {
		if v.ID == id {
			return v.Path
		}
	}
	t.Fatalf("no volume %s", id)
	return ""
}

func TestATemplatesHomeStays(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		d := h.ready(t, func(a *workspace.Assignment) { a.Spec.Env = []workspace.EnvVar{{Name: "HOME", Value: "/root"}} })
		if env := h.created()[0].Env; !slices.Contains(env, "HOME=/root") || slices.Contains(env, "HOME=/home/user") {
			t.Errorf("environment: %v", env)
		}
		d.stop(t)
		h.cluster.check(t)
	})
}

// What the user has put on the volume keeps no run from starting, and nothing of
// the host is touched through it.
func TestResultsStayOnTheVolume(t *testing.T) {
	outside, user := t.TempDir(), runtime.User{UID: 12, GID: 34}
	for name, plant := range map[string]func(volume string) error{
		"a link to elsewhere": func(volume string) error { return os.Symlink(outside, filepath.Join(volume, "runs")) },
		"a link upwards":      func(volume string) error { return os.Symlink("../..", filepath.Join(volume, "runs")) },
		"a file":              func(volume string) error { return os.WriteFile(filepath.Join(volume, "runs"), nil, 0o600) },
	} {
		volume := filepath.Join(t.TempDir(), "inner", "volume")
		if err := os.MkdirAll(volume, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := plant(volume); err != nil {
			t.Fatal(err)
		}
		dir, err := makeResults(volume, "run-1", user)
		if err == nil || dir != "" {
			t.Errorf("%s: made %q", name, dir)
		}
	}
	if entries, _ := os.ReadDir(outside); len(entries) != 0 {
		t.Errorf("made outside: %v", entries)
	}

	volume := t.TempDir()
	if _, err := makeResults(volume, "run-1", user); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]runtime.User{"": {}, "runs": user, "runs/run-1": user} {
		var stat unix.Stat_t
		if err := unix.Stat(filepath.Join(volume, name), &stat); err != nil || stat.Uid != want.UID || stat.Gid != want.GID {
			t.Errorf("%q is of %d:%d, %v", name, stat.Uid, stat.Gid, err)
		}
	}
}

func TestVolumesThatCannotBeHad(t *testing.T) {
	for _, test := range []struct {
		name    string
		prepare func(*host)
		made    bool
		reason  string
		gone    bool
	}{
		{"lost", nil, true, "volume_lost", true},
		{"no room", func(h *host) { h.volumes.FailNext("Mount", runtime.ErrNoSpace) }, false, "no_space", false},
		{"corrupt", func(h *host) { h.volumes.FailNext("Mount", runtime.ErrCorrupt) }, false, "volume_corrupt", false},
		{"invalid", func(h *host) { h.volumes.FailNext("Mount", runtime.ErrInvalid) }, false, "volume_failed", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, h *host) {
				if test.prepare != nil {
					test.prepare(h)
				}
				d := h.ready(t, func(a *workspace.Assignment) { a.Volume.Made = test.made })
				pass(time.Second)
				r := h.cluster.now("run-1")
				if r.Phase != workspace.PhaseFailed || r.reason != test.reason || r.listed() || len(h.created()) != 0 {
					t.Errorf("%s (%s: %s), %d containers made", r.Phase, r.reason, r.message, len(h.created()))
				}
				volumes, _ := h.cluster.said()
				gone := slices.ContainsFunc(volumes, func(v workspace.VolumeReport) bool { return v.Gone })
				if gone != test.gone || len(h.left()) != 0 {
					t.Errorf("reported gone: %v; left: %v", gone, h.left())
				}
				if list, _ := h.volumes.List(t.Context()); len(list) != 0 {
					t.Errorf("volumes: %v", list)
				}
				d.stop(t)
				h.cluster.check(t)
			})
		})
	}
}

// What may pass is tried again, for a while, and said.
func TestPreparingIsTriedAgain(t *testing.T) {
	odd := errors.New("mkfs: input/output error")
	for _, test := range []struct {
		fail   func(*host, int)
		reason string
	}{
		{func(h *host, n int) { times(n, func() { h.volumes.FailNext("Mount", odd) }) }, "volume_failed"},
		{func(h *host, n int) { times(n, func() { h.networks.FailNext("Attach", odd) }) }, "network_failed"},
		{func(h *host, n int) { times(n, func() { h.networks.FailNext("Attach", runtime.ErrNoAddress) }) }, "no_address"},
	} {
		for _, lasts := range []bool{false, true} {
			inBubble(t, func(t *testing.T, h *host) {
				test.fail(h, map[bool]int{false: 4, true: 1000}[lasts])
				d := h.ready(t, nil)
				if r := h.cluster.now("run-1"); r.Phase != workspace.PhasePulling || r.reason != test.reason {
					t.Errorf("at first: %s (%s: %s)", r.Phase, r.reason, r.message)
				}
				pass(startPatience + longestBackOff)
				r := h.cluster.now("run-1")
				if !lasts && r.Phase != workspace.PhaseRunning || lasts && (r.Phase != workspace.PhaseFailed || r.reason != test.reason) {
					t.Errorf("%s, lasts %v: %s (%s: %s)", test.reason, lasts, r.Phase, r.reason, r.message)
				}
				if lasts && len(h.left()) != 0 {
					t.Errorf("left: %v", h.left())
				}
				d.stop(t)
				h.cluster.check(t)
			})
		}
	}
}

// A stop doesn't wait for a volume that is being made.
func TestAStopWhileAVolumeIsMade(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		c := h.cluster
		release := h.volumes.Block("Mount")
		defer release()
		d := h.ready(t, nil)
		c.stop("run-1", "user_stop")
		settle()
		if got := c.phases("run-1"); got != "pulling, stopped, release "+uuid(0) || len(h.left()) != 0 {
			t.Errorf("phases: %s; left: %v", got, h.left())
		}
		d.stop(t)
		c.check(t)
	})
}

// The next run of an instance starts once the one before it has let go of the
// volume and the ports, and no sooner.
func TestTheNextRunWaitsForTheOneBefore(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		c := h.cluster
		same := func(a *workspace.Assignment) { a.Instance = "instance-1" }
		d := h.ready(t, same)
		release := h.volumes.Block("Unmount")
		c.stop("run-1", "user_stop")
		pass(time.Second)
		h.networks.Serve("run-2", 8888, answer(200))
		c.place("run-2", both(complete, same, func(a *workspace.Assignment) { a.Volume.Made = true }), uuid(1))
		pass(time.Minute)
		if r := c.now("run-2"); r.Phase != workspace.PhasePulling || r.reason != "in_use" || !strings.Contains(r.message, "run-1") {
			t.Errorf("%s (%s: %s)", r.Phase, r.reason, r.message)
		}
		release()
		settle()
		if r := c.now("run-2"); r.Phase != workspace.PhaseRunning || r.access[0].Port != 30000 {
			t.Errorf("%s (%s: %s), at %v", r.Phase, r.reason, r.message, r.access)
		}
		if diff := cmp.Diff([]string{"network run-2", "volume volume-1"}, h.left()); diff != "" {
			t.Error(diff)
		}
		d.stop(t)
		c.check(t)
	})
}

// After a restart too, the run that is over doesn't take the volume from the one
// that has it now.
func TestAnOldRunLeavesTheVolumeToTheNewOne(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		c := h.cluster
		d := h.ready(t, nil)
		h.gpus.SetProcesses(processOn(uuid(0), 7))
		h.cgroups(7, "/berth/run-1")
		c.stop("run-1", "user_stop") // its device can't be released
		pass(time.Second)
		h.networks.Serve("run-2", 8888, answer(200))
		c.place("run-2", both(complete, func(a *workspace.Assignment) { a.Volume.Made = true }), uuid(1))
		pass(time.Second)
		d.stop(t)
		d = h.startDaemon("")
		pass(time.Minute)
		if diff := cmp.Diff([]string{"network run-2", "volume volume-1"}, h.left()); diff != "" {
			t.Error(diff)
		}
		if r := c.now("run-1"); !r.listed() || !r.stuck[uuid(0)] {
			t.Error("the device that is still used was released")
		}
		d.stop(t)
		c.check(t)
	})
}

// The end of a run is recorded though its volume or network can't be taken away
// yet; its devices stay held until they are.
func TestWhatCannotBeTakenAwayHoldsTheDevices(t *testing.T) {
	for _, what := range []string{"volume", "network"} {
		inBubble(t, func(t *testing.T, h *host) {
			c := h.cluster
			d := h.ready(t, nil)
			release := func() {}
			if what == "volume" {
				release = h.volumes.Hold("volume-1")
			} else {
				times(10, func() { h.networks.FailNext("Detach", errors.New("iptables: resource temporarily unavailable")) })
			}
			c.stop("run-1", "user_stop")
			pass(2 * killPatience)
			if r := c.now("run-1"); r.Phase != workspace.PhaseStopped || !r.held[uuid(0)] || !r.stuck[uuid(0)] {
				t.Errorf("%s: %s, held %v, stuck %v", what, r.Phase, r.held, r.stuck)
			}
			release()
			pass(time.Minute)
			if got := c.phases("run-1"); !strings.HasSuffix(got, "stopped, release "+uuid(0)) || len(h.left()) != 0 {
				t.Errorf("%s: phases: %s; left %v", what, got, h.left())
			}
			d.stop(t)
			c.check(t)
		})
	}
}

func TestImagesArePulled(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		c := h.cluster
		const reference = "registry.lab/train:1"
		digest := h.Offer(runtimetest.Remote{Reference: reference, Username: "ann", Password: "pa55"})
		release := h.Block("Unpack")
		d := h.start(t, func(a *workspace.Assignment) {
			a.Spec.Image, a.Spec.ImageDigest = reference, digest
			a.Login = &workspace.RegistryLogin{Host: "registry.lab", Username: "ann", Password: workspace.NewSecret("pa55")}
		})
		if r := c.now("run-1"); r.Phase != workspace.PhasePulling || r.reason != "pulling_image" || !strings.HasPrefix(r.message, "fetching") {
			t.Errorf("%s (%s: %s)", r.Phase, r.reason, r.message)
		}
		want := workspace.PullProgress{Reference: reference, DoneBytes: 500, TotalBytes: 1000, Layers: 2, LayersDone: 1}
		if got, ok := d.Pulling("run-1"); !ok || got != want {
			t.Errorf("progress: %+v, %v", got, ok)
		}
		release()
		settle()
		if r := c.now("run-1"); r.Phase != workspace.PhaseRunning || h.created()[0].Image != reference || len(c.node().images) != 2 {
			t.Errorf("%s (%s: %s); images %v", r.Phase, r.reason, r.message, c.node().images)
		}
		if _, ok := d.Pulling("run-1"); ok {
			t.Error("it is still being pulled")
		}
		d.stop(t)
		c.check(t)
	})
}

func TestAStopEndsAPull(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		digest := h.Offer(runtimetest.Remote{Reference: "registry.lab/train:1"})
		release := h.Block("Unpack")
		defer release()
		d := h.start(t, func(a *workspace.Assignment) { a.Spec.Image, a.Spec.ImageDigest = "registry.lab/train:1", digest })
		h.cluster.stop("run-1", "user_stop")
		settle()
		if got := h.cluster.phases("run-1"); got != "pulling, stopped, release "+uuid(0) {
			t.Errorf("phases: %s", got)
		}
		d.stop(t)
		h.cluster.check(t)
	})
}

func TestPullsThatFail(t *testing.T) {
	const reference = "registry.lab/train:1"
	for _, test := range []struct {
		name   string
		offer  runtimetest.Remote
		fail   error
		reason string
	}{
		{"password", runtimetest.Remote{Reference: reference, Username: "bob", Password: "other"}, nil, "registry_denied"},
		{"password told", runtimetest.Remote{Reference: reference}, fmt.Errorf("GET https://ann:pa55-w0rd@registry.lab: %w", runtime.ErrDenied), "registry_denied"},
		{"absent", runtimetest.Remote{Reference: "registry.lab/other:1"}, nil, "image_missing"},
		{"platform", runtimetest.Remote{Reference: reference, Architecture: "s390x"}, nil, "wrong_platform"},
		{"damaged", runtimetest.Remote{Reference: reference, Damaged: true}, nil, "image_invalid"},
		{"disk", runtimetest.Remote{Reference: reference}, runtime.ErrNoSpace, "no_space"},
	} {
		inBubble(t, func(t *testing.T, h *host) {
			digest := h.Offer(test.offer)
			if test.offer.Reference != reference {
				digest = "sha256:00"
			}
			if test.fail != nil {
				h.FailNext("Pull", test.fail)
			}
			d := h.start(t, func(a *workspace.Assignment) {
				a.Spec.Image, a.Spec.ImageDigest = reference, digest
				a.Login = &workspace.RegistryLogin{Username: "ann", Password: workspace.NewSecret("pa55-w0rd")}
				if test.reason != "registry_denied" {
					a.Login = nil
				}
			})
			r := h.cluster.now("run-1")
			if r.Phase != workspace.PhaseFailed || r.reason != test.reason || r.listed() || strings.Contains(r.message, "pa55") {
				t.Errorf("%s: %s (%s: %s)", test.name, r.Phase, r.reason, r.message)
			}
			d.stop(t)
			h.cluster.check(t)
		})
	}
}

// A registry that can't be reached is asked again for a while.
func TestARegistryThatIsAway(t *testing.T) {
	const reference = "registry.lab/train:1"
	for _, lasts := range []bool{false, true} {
		inBubble(t, func(t *testing.T, h *host) {
			c := h.cluster
			digest := h.Offer(runtimetest.Remote{Reference: reference})
			times(map[bool]int{false: 5, true: 1000}[lasts], func() { h.FailNext("Pull", runtime.ErrRegistry) })
			d := h.start(t, func(a *workspace.Assignment) { a.Spec.Image, a.Spec.ImageDigest = reference, digest })
			if r := c.now("run-1"); r.Phase != workspace.PhasePulling || r.reason != "registry_unavailable" || !strings.Contains(r.message, "tried again") {
				t.Errorf("at first: %s (%s: %s)", r.Phase, r.reason, r.message)
			}
			pass(startPatience + longestBackOff)
			want := map[bool]workspace.Phase{false: workspace.PhaseRunning, true: workspace.PhaseFailed}[lasts]
			if r := c.now("run-1"); r.Phase != want {
				t.Errorf("lasts %v: %s (%s: %s)", lasts, r.Phase, r.reason, r.message)
			}
			d.stop(t)
			c.check(t)
		})
	}
}

// A run that is taken from this node while it is prepared leaves nothing.
func TestARunThatGoesWhileItIsPrepared(t *testing.T) {
	for name, block := range map[string]func(*host) func(){
		"volume":  func(h *host) func() { return h.volumes.Block("Mount") },
		"network": func(h *host) func() { return h.networks.Block("Attach") },
		"image":   func(h *host) func() { return h.Block("Unpack") },
	} {
		inBubble(t, func(t *testing.T, h *host) {
			digest := h.Offer(runtimetest.Remote{Reference: "registry.lab/train:1"})
			release := block(h)
			d := h.ready(t, func(a *workspace.Assignment) { a.Spec.Image, a.Spec.ImageDigest = "registry.lab/train:1", digest })
			h.cluster.lose("run-1", true)
			settle()
			release()
			pass(time.Second)
			if left := h.left(); len(left) != 0 || d.Stats().Runs != 0 || len(h.created()) != 0 {
				t.Errorf("%s: left %v, %d runs", name, left, d.Stats().Runs)
			}
			d.stop(t)
			h.cluster.check(t)
		})
	}
}

// What comes in for a run that went at that very moment is for nobody.
func TestAResultForARunThatHasGone(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		d := h.startDaemon("")
		settle()
		a := &workspace.Assignment{Run: "run-1", Phase: workspace.PhasePulling}
		complete(a)
		c := there(runtime.StateRunning)
		for name, begin := range map[string]func(w *worker, in input){
			"pull":    func(w *worker, in input) { w.fetch(t.Context(), in) },
			"prepare": func(w *worker, in input) { _ = w.prepare(t.Context(), in) },
			"probe":   func(w *worker, in input) { w.probe(t.Context(), in) },
		} {
			h.volumes.FailNext("Mount", runtime.ErrCorrupt)
			w := &worker{agent: d.Agent, run: "run-1", results: make(chan *job, 2)}
			begin(w, input{assignment: a, container: c})
			(<-w.results).deliver(input{})
			if p := &w.progress; p.end != nil || p.image != "" || p.prepared != nil || w.failures != 0 {
				t.Errorf("%s: %+v", name, p)
			}
		}
		d.stop(t)
	})
}

// The image's user is the owner of what is made for it.
func TestANewVolumeIsTheImagesUsers(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		d := h.ready(t, nil)
		user, err := h.ImageUser(t.Context(), testImage)
		if err != nil {
			t.Fatal(err)
		}
		if owner := h.volumes.Owner("volume-1"); owner != user {
			t.Errorf("owner %v, the image's user is %v", owner, user)
		}
		d.stop(t)
		h.cluster.check(t)
	})
}
