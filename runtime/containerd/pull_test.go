package containerd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"berth/runtime"
	"berth/runtime/runtimetest"
)

// stored lists all that containerd has of images.
func stored(t *testing.T, r *Runtime) (found []string) {
	t.Helper()
	ctx := context.Background()
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	must(r.client.ContentStore().Walk(ctx, func(info content.Info) error {
		found = append(found, fmt.Sprintf("blob %s of %d bytes", info.Digest, info.Size))
		return nil
	}))
	ingests, err := r.client.ContentStore().ListStatuses(ctx)
	must(err)
	for _, ingest := range ingests {
		found = append(found, fmt.Sprintf("part %s of %d bytes", ingest.Ref, ingest.Offset))
	}
	for _, name := range []string{"overlayfs", "native"} {
		must(r.client.SnapshotService(name).Walk(ctx, func(_ context.Context, info snapshots.Info) error {
			found = append(found, "snapshot "+info.Name)
			return nil
		}))
	}
	leases, err := r.client.LeasesService().List(ctx)
	must(err)
	for _, lease := range leases {
		found = append(found, fmt.Sprintf("lease %v", lease))
	}
	return found
}

// wantRefused pulls what can't be pulled, and wants nothing left of it.
func wantRefused(t *testing.T, r *Runtime, source runtime.ImageSource, class error, words ...string) {
	t.Helper()
	_, err := r.Pull(t.Context(), source, nil)
	if !errors.Is(err, class) {
		t.Errorf("Pull: %v, want %q", err, class)
		return
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("the error says %q, want %q in it", err, word)
		}
	}
	noImages(t, r)
	if left := stored(t, r); len(left) > 0 {
		t.Errorf("left in containerd:\n%s", strings.Join(left, "\n"))
	}
}

// TestPullBounds: what a registry serves is bounded before it is fetched, while
// it is, and when it is unpacked.
func TestPullBounds(t *testing.T) {
	registry := newTestRegistry(t)
	r := shared.openPulling(t, func(c *Config) { c.Registries, c.MaxImport = []Registry{registry.config()}, 64*mib })
	layer := fileLayer(t, "file", 100_000)

	t.Run("bomb", func(t *testing.T) {
		bomb, diffID := zeros(t, 512*mib)
		registry.push(t, "bad", "bomb", imageOf(t, "amd64", testLayer{bomb, diffID}))
		wantRefused(t, r, from(registry.host, "bad:bomb"), runtime.ErrInvalid, "unpacked, its layers take more than")
	})
	t.Run("large manifest", func(t *testing.T) {
		image := imageOf(t, "amd64", layer)
		image.manifest = append(image.manifest, strings.Repeat(" ", maxDocument)...)
		registry.push(t, "bad", "manifest", image)
		wantRefused(t, r, from(registry.host, "bad:manifest"), runtime.ErrInvalid, "any image needs")
	})
	t.Run("manifest of many elements", func(t *testing.T) {
		image := imageOf(t, "amd64", layer)
		many := `,"more":[` + strings.Repeat("{},", maxElements+1) + "{}]}"
		image.manifest = []byte(strings.TrimSuffix(string(image.manifest), "}") + many)
		registry.push(t, "bad", "elements", image)
		wantRefused(t, r, from(registry.host, "bad:elements"), runtime.ErrInvalid, "any image needs")
	})
	t.Run("large configuration", func(t *testing.T) {
		image := imageOf(t, "amd64", layer)
		config := image.blobs[len(image.blobs)-1]
		image.manifest = []byte(strings.Replace(string(image.manifest), fmt.Sprintf(`"size":%d`, len(config)), `"size":2000000`, 1))
		registry.push(t, "bad", "config", image)
		registry.intercepting(nil)
		wantRefused(t, r, from(registry.host, "bad:config"), runtime.ErrInvalid, "any image needs")
		if asked := registry.asked(http.MethodGet, digest.FromBytes(config).String()); len(asked) > 0 {
			t.Error("the configuration was asked for")
		}
	})
	t.Run("endless manifest without a digest", func(t *testing.T) {
		registry.intercepting(func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
			for r.Method == http.MethodGet && r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 64<<10)); err != nil {
					break
				}
			}
			return true
		})
		defer registry.intercepting(nil)
		wantRefused(t, r, from(registry.host, "bad:endless"), runtime.ErrInvalid)
	})
	t.Run("layers of more than one image may take", func(t *testing.T) {
		image := imageOf(t, "amd64", layer)
		image.manifest = []byte(strings.Replace(string(image.manifest), fmt.Sprintf(`"size":%d`, len(layer.content)), `"size":100000000`, 1))
		registry.push(t, "bad", "claim", image)
		registry.intercepting(nil)
		wantRefused(t, r, from(registry.host, "bad:claim"), runtime.ErrInvalid, "one image may take")
		if asked := registry.asked(http.MethodGet, digest.FromBytes(layer.content).String()); len(asked) > 0 {
			t.Errorf("the layer was asked for")
		}
	})
	t.Run("layer larger than it should be", func(t *testing.T) {
		image := imageOf(t, "amd64", layer)
		image.manifest = []byte(strings.Replace(string(image.manifest), fmt.Sprintf(`"size":%d`, len(layer.content)), `"size":1000`, 1))
		registry.push(t, "bad", "longer", image)
		wantRefused(t, r, from(registry.host, "bad:longer"), runtime.ErrInvalid, "serves something else")
	})
	t.Run("layer shorter than it should be", func(t *testing.T) {
		image := imageOf(t, "amd64", layer)
		image.manifest = []byte(strings.Replace(string(image.manifest), fmt.Sprintf(`"size":%d`, len(layer.content)), `"size":1000000`, 1))
		registry.push(t, "bad", "shorter", image)
		wantRefused(t, r, from(registry.host, "bad:shorter"), runtime.ErrInvalid, "serves something else")
	})
	t.Run("layer that isn't one", func(t *testing.T) {
		broken := []byte("this is no tar file, and isn't compressed")
		registry.push(t, "bad", "nonsense", imageOf(t, "amd64", testLayer{broken, digest.FromBytes(broken)}))
		wantRefused(t, r, from(registry.host, "bad:nonsense"), runtime.ErrInvalid, "can't be unpacked")
	})
	t.Run("disk full", func(t *testing.T) {
		registry.push(t, "good", "1", imageOf(t, "amd64", layer))
		r.statfs = func(path string, stat *unix.Statfs_t) error {
			err := unix.Statfs(path, stat)
			stat.Bavail = 1
			return err
		}
		wantRefused(t, r, from(registry.host, "good:1"), runtime.ErrNoSpace, "remove images")
		r.statfs = unix.Statfs
	})
	t.Run("disk that others fill", func(t *testing.T) {
		registry.push(t, "good", "1", imageOf(t, "amd64", layer))
		var calls atomic.Uint64 // after each, more is gone than one image may take
		r.statfs = func(path string, stat *unix.Statfs_t) error {
			err := unix.Statfs(path, stat)
			stat.Bavail -= min(calls.Add(1), 20) * 100 * mib / uint64(stat.Bsize)
			return err
		}
		defer func() { r.statfs = unix.Statfs }()
		if _, err := r.Pull(t.Context(), from(registry.host, "good:1"), nil); err != nil {
			t.Errorf("Pull: %v", err)
		}
		wantNothing(t, r)
	})
	t.Run("wrong digest of a manifest", func(t *testing.T) {
		registry.push(t, "good", "1", imageOf(t, "amd64", layer))
		other := imageOf(t, "amd64", layer, fileLayer(t, "another", 10))
		registry.intercepting(func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.Contains(r.URL.Path, "/manifests/") {
				return false
			}
			w.Header().Set("Content-Type", other.mediaType)
			w.Header().Set("Content-Length", strconv.Itoa(len(other.manifest)))
			w.Header().Set("Docker-Content-Digest", digest.FromString("a lie").String())
			_, _ = w.Write(other.manifest)
			return true
		})
		defer registry.intercepting(nil)
		wantRefused(t, r, from(registry.host, "good:1"), runtime.ErrInvalid, "serves something else")
	})
}

// TestPullPlatforms: of an index only what this host needs is fetched.
func TestPullPlatforms(t *testing.T) {
	registry := newTestRegistry(t)
	r := shared.openPulling(t, func(c *Config) { c.Registries = []Registry{registry.config()} })
	ours, theirs := fileLayer(t, "ours", 1000), fileLayer(t, "theirs", 1000)
	children := map[string]testImage{
		"arm64": imageOf(t, "arm64", theirs), "s390x": imageOf(t, "s390x", fileLayer(t, "s390x", 10)),
	}
	registry.push(t, "lab/many", "others", indexOf(t, children))
	wantRefused(t, r, from(registry.host, "lab/many:others"), runtime.ErrPlatform, "linux/arm64", "linux/s390x", "this host is linux/amd64")

	children["amd64"] = imageOf(t, "amd64", ours)
	index := indexOf(t, children)
	registry.push(t, "lab/many", "1", index)
	registry.intercepting(nil)
	image, err := r.Pull(t.Context(), from(registry.host, "lab/many:1"), nil)
	if err != nil || image.Digest != index.descriptor().Digest.String() {
		t.Fatalf("Pull: %+v, %v; want the index's digest", image, err)
	}
	if len(registry.asked(http.MethodGet, digest.FromBytes(theirs.content).String())) > 0 {
		t.Error("another platform's layer was fetched")
	}
	if listed, err := r.Images(t.Context()); err != nil || len(listed) != 1 || listed[0] != image {
		t.Errorf("Images gives %+v, %v; want %+v", listed, err, image)
	}
	if _, _, err := r.image(t.Context(), image.Reference, image.Digest); err != nil {
		t.Errorf("a container can't be made from it: %v", err)
	}
	if kept := stored(t, r); len(kept) != 5 { // index, manifest, configuration, layer, snapshot
		t.Errorf("containerd has %q", kept)
	}
}

// TestPullResumes: the connection breaks in the middle of the second layer.
func TestPullResumes(t *testing.T) {
	registry := newTestRegistry(t)
	configure := func(c *Config) { c.Registries = []Registry{registry.config()} }
	r := shared.openPulling(t, configure)
	first, second := fileLayer(t, "first", 100_000), fileLayer(t, "second", 8*mib)
	registry.push(t, "lab/large", "1", imageOf(t, "amd64", first, second))
	var breaks atomic.Int32
	name := digest.FromBytes(second.content).String()
	half := len(second.content) / 2
	registry.intercepting(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, name) {
			return false
		}
		if breaks.Add(1) > 1 {
			w.WriteHeader(http.StatusBadGateway)
			return true
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(second.content)))
		_, _ = w.Write(second.content[:half])
		panic(http.ErrAbortHandler)
	})
	source := from(registry.host, "lab/large:1")
	_, err := r.Pull(t.Context(), source, nil)
	if !errors.Is(err, runtime.ErrRegistry) {
		t.Fatalf("Pull: %v, want an unavailable registry", err)
	}
	noImages(t, r)

	// The daemon restarts, and containerd collects its garbage.
	again, err := New(t.Context(), r.cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	_, release, err := again.lease(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	release()

	served := atomic.Int64{}
	registry.intercepting(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, name) {
			return false
		}
		http.ServeContent(&counted{ResponseWriter: w, bytes: &served}, r, "", time.Time{}, bytes.NewReader(second.content))
		return true
	})
	var last runtime.PullProgress
	if _, err := again.Pull(t.Context(), source, func(p runtime.PullProgress) { last = p }); err != nil {
		t.Fatalf("second Pull: %v", err)
	}
	if asked := registry.asked(http.MethodGet, digest.FromBytes(first.content).String()); len(asked) > 0 {
		t.Error("the layer that was whole was fetched again")
	}
	if n := served.Load(); n == 0 || n > int64(len(second.content)*3/4) {
		t.Errorf("%d of %d bytes of the layer were served again, want the second half", n, len(second.content))
	}
	if last.DoneBytes != last.TotalBytes || last.LayersDone != 2 {
		t.Errorf("progress is %+v at the end", last)
	}
}

// counted counts what is served.
type counted struct {
	http.ResponseWriter
	bytes *atomic.Int64
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.bytes.Add(int64(n))
	return n, err
}

// TestPullTwoUsers: the first of two pulls of an image is cancelled; the second
// goes on, and shows the first's progress while it waits.
func TestPullTwoUsers(t *testing.T) {
	registry := newTestRegistry(t)
	r := shared.openPulling(t, func(c *Config) { c.Registries = []Registry{registry.config()} })
	layer := fileLayer(t, "slow", mib)
	registry.push(t, "lab/slow", "1", imageOf(t, "amd64", layer))
	name := digest.FromBytes(layer.content).String()
	var calls atomic.Int32
	registry.intercepting(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, name) || calls.Add(1) > 1 {
			return false
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(layer.content)))
		_, _ = w.Write(layer.content[:len(layer.content)/2])
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		return true
	})
	source := from(registry.host, "lab/slow:1")
	impatient, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 2)
	go func() {
		_, err := r.Pull(impatient, source, nil)
		ended <- err
	}()
	runtimetest.Eventually(t, "the first has begun", func() bool { return calls.Load() > 0 })
	var seen atomic.Int64
	go func() {
		_, err := r.Pull(t.Context(), source, func(p runtime.PullProgress) { seen.Store(p.DoneBytes) })
		ended <- err
	}()
	runtimetest.Eventually(t, "the second shows the first's progress", func() bool { return seen.Load() > int64(len(layer.content)/3) })
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the cancelled Pull: %v", err)
	}
	if err := <-ended; err != nil {
		t.Errorf("the other Pull: %v", err)
	}
}

// TestPulledOrImported: what came last under a name counts, and the garbage is
// collected when it goes.
func TestPulledOrImported(t *testing.T) {
	registry := newTestRegistry(t)
	r := shared.openPulling(t, func(c *Config) { c.Registries = []Registry{registry.config()} })
	layer, diffID := zeros(t, mib)
	registry.push(t, "lab/zeros", "1", imageOf(t, "amd64", testLayer{layer, diffID}))
	name := registry.host + "/lab/zeros:1"
	pulled, err := r.Pull(t.Context(), from(name), nil)
	if err != nil || pulled.Pulled.IsZero() {
		t.Fatalf("Pull: %+v, %v", pulled, err)
	}
	archive, err := io.ReadAll(imageArchive(t, "", "", layer, diffID))
	if err != nil {
		t.Fatal(err)
	}
	imported, err := r.Import(t.Context(), strings.NewReader(string(archive)), name)
	if err != nil || !imported[0].Pulled.IsZero() {
		t.Fatalf("Import: %+v, %v", imported, err)
	}
	if listed, err := r.Images(t.Context()); err != nil || len(listed) != 1 || listed[0] != imported[0] {
		t.Errorf("Images gives %+v, %v; want %+v", listed, err, imported)
	}
	if again, err := r.Pull(t.Context(), from(name), nil); err != nil || again.Digest != pulled.Digest || again.Pulled.IsZero() {
		t.Errorf("Pull: %+v, %v", again, err)
	}
}
