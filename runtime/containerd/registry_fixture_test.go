package containerd

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/runtime"
	"berth/runtime/runtimetest"
	"berth/test/image/ociarchive"
)

// testRegistry is a registry of the tests' own. What an intercept answers, the
// registry doesn't.
type testRegistry struct {
	*httptest.Server
	host string

	mu        sync.Mutex
	intercept func(w http.ResponseWriter, r *http.Request) bool
	requests  []*http.Request
}

func newTestRegistry(t *testing.T) *testRegistry {
	t.Helper()
	g := &testRegistry{}
	g.Server = httptest.NewServer(g.handler())
	g.host = g.Listener.Addr().String()
	t.Cleanup(g.Close)
	return g
}

func newTLSRegistry(t *testing.T) *testRegistry {
	t.Helper()
	g := &testRegistry{}
	g.Server = httptest.NewUnstartedServer(g.handler())
	g.Config.ErrorLog = log.New(io.Discard, "", 0) // refused handshakes
	g.StartTLS()
	g.host = g.Listener.Addr().String()
	t.Cleanup(g.Close)
	return g
}

func (g *testRegistry) handler() http.Handler {
	store := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.mu.Lock()
		intercept := g.intercept
		pushed := r.Header.Get("Pushed") != ""
		if !pushed {
			g.requests = append(g.requests, r)
		}
		g.mu.Unlock()
		if pushed || intercept == nil || !intercept(w, r) {
			store.ServeHTTP(w, r)
		}
	})
}

func (g *testRegistry) intercepting(intercept func(w http.ResponseWriter, r *http.Request) bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.intercept, g.requests = intercept, nil
}

// asked are the requests since the last call of intercepting whose path ends so.
func (g *testRegistry) asked(method, suffix string) (found []*http.Request) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, r := range g.requests {
		if r.Method == method && strings.HasSuffix(r.URL.Path, suffix) {
			found = append(found, r)
		}
	}
	return found
}

// config names the registry in a configuration.
func (g *testRegistry) config() Registry {
	return Registry{Host: g.host, PlainHTTP: g.TLS == nil}
}

// testImage is what a registry is to have.
type testImage struct {
	manifest  []byte
	mediaType string
	blobs     [][]byte
	children  []testImage // of an index
}

func (i testImage) descriptor() ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: i.mediaType, Digest: digest.FromBytes(i.manifest), Size: int64(len(i.manifest))}
}

// push puts an image where its name says, past all that stands before it.
func (g *testRegistry) push(t *testing.T, repository, tag string, image testImage) {
	t.Helper()
	for _, child := range image.children {
		g.push(t, repository, child.descriptor().Digest.String(), child)
	}
	for _, blob := range image.blobs {
		g.send(t, http.MethodPost, fmt.Sprintf("%s/blobs/uploads/?digest=%s", repository, digest.FromBytes(blob)), "application/octet-stream", blob)
	}
	g.send(t, http.MethodPut, repository+"/manifests/"+tag, image.mediaType, image.manifest)
}

func (g *testRegistry) send(t *testing.T, method, path, kind string, body []byte) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, g.URL+"/v2/"+path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", kind)
	request.Header.Set("Pushed", "yes")
	response, err := g.Client().Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode >= 300 {
		answer, _ := io.ReadAll(response.Body)
		t.Fatalf("%s %s: %s: %s", method, path, response.Status, answer)
	}
}

// imageOf makes an image of compressed layers.
func imageOf(t *testing.T, architecture string, layers ...testLayer) testImage {
	t.Helper()
	config := ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: architecture}}
	manifest := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest}
	manifest.SchemaVersion = 2
	image := testImage{mediaType: ocispec.MediaTypeImageManifest}
	config.RootFS.Type = "layers"
	for _, layer := range layers {
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, layer.diffID)
		manifest.Layers = append(manifest.Layers, ocispec.Descriptor{
			MediaType: ocispec.MediaTypeImageLayerGzip, Digest: digest.FromBytes(layer.content), Size: int64(len(layer.content)),
		})
		image.blobs = append(image.blobs, layer.content)
	}
	blob := encoded(t, config)
	image.blobs = append(image.blobs, blob)
	manifest.Config = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: digest.FromBytes(blob), Size: int64(len(blob))}
	image.manifest = encoded(t, manifest)
	return image
}

func indexOf(t *testing.T, children map[string]testImage) testImage {
	t.Helper()
	index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex}
	index.SchemaVersion = 2
	image := testImage{mediaType: ocispec.MediaTypeImageIndex}
	for architecture, child := range children {
		d := child.descriptor()
		d.Platform = &ocispec.Platform{OS: "linux", Architecture: architecture}
		index.Manifests = append(index.Manifests, d)
		image.children = append(image.children, child)
	}
	image.manifest = encoded(t, index)
	return image
}

type testLayer struct {
	content []byte // compressed
	diffID  digest.Digest
}

// fileLayer has one file, of content that doesn't compress.
func fileLayer(t *testing.T, name string, size int) testLayer {
	t.Helper()
	content := make([]byte, 0, size)
	for seed := digest.FromString(name); len(content) < size; seed = digest.FromString(seed.String()) {
		content = append(content, seed.Encoded()...)
	}
	plain := entries(t, []tar.Header{{Name: name, Mode: 0o644}}, map[string]string{name: string(content[:size])})
	return testLayer{content: zipped(t, plain), diffID: digest.FromBytes(plain)}
}

func encoded(t *testing.T, v any) []byte {
	t.Helper()
	content, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// archived is the image of an OCI archive.
func archived(t *testing.T, archive []byte) testImage {
	t.Helper()
	files := map[string][]byte{}
	for in := tar.NewReader(bytes.NewReader(archive)); ; {
		header, err := in.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if files[header.Name], err = io.ReadAll(in); err != nil {
			t.Fatal(err)
		}
	}
	var index ocispec.Index
	if err := json.Unmarshal(files["index.json"], &index); err != nil {
		t.Fatal(err)
	}
	image := testImage{mediaType: ocispec.MediaTypeImageManifest}
	for name, content := range files {
		switch {
		case name == "blobs/sha256/"+index.Manifests[0].Digest.Encoded():
			image.manifest = content
		case strings.HasPrefix(name, "blobs/sha256/") && len(content) > 0:
			image.blobs = append(image.blobs, content)
		}
	}
	return image
}

// offer is for the conformance suite.
func (g *testRegistry) offer(t *testing.T, remote runtimetest.Remote) string {
	t.Helper()
	image := archived(t, demoArchive(t, ociarchive.Options{}))
	if remote.Architecture != "" {
		image = imageOf(t, remote.Architecture, fileLayer(t, remote.Reference, 1000))
	}
	if remote.Damaged {
		layer := fileLayer(t, "damaged", 100_000)
		image = imageOf(t, "amd64", layer)
		wrong := slices.Clone(layer.content)
		wrong[1000] ^= 1
		g.intercepting(func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, digest.FromBytes(layer.content).String()) {
				return false
			}
			_, _ = w.Write(wrong)
			return true
		})
	}
	if remote.Username != "" {
		g.intercepting(func(w http.ResponseWriter, r *http.Request) bool {
			username, password, _ := r.BasicAuth()
			if username == remote.Username && password == remote.Password {
				return false
			}
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.WriteHeader(http.StatusUnauthorized)
			return true
		})
		t.Cleanup(func() { g.intercepting(nil) })
	}
	repository, tag, _ := strings.Cut(remote.Reference, ":")
	g.push(t, repository, tag, image)
	return g.host + "/" + remote.Reference
}

// openPulling gives a Runtime that pulls on the shared containerd, and checks at
// the end of the test that nothing is left of what was pulled.
func (h *host) openPulling(t *testing.T, change func(*Config)) *Runtime {
	t.Helper()
	if h.address == "" {
		t.Skip("no containerd")
	}
	cfg := Config{
		Address: h.address, Namespace: h.namespace(), Helper: h.helper(), CDIDir: filepath.Join(h.dir, "cdi"),
		CgroupParent: h.parent, Log: slog.New(slog.DiscardHandler),
	}
	change(&cfg)
	r, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		wantNothing(t, r)
		r.Close()
	})
	return r
}

// wantNothing removes the images and looks for what is left: contents, parts of
// them, snapshots and leases.
func wantNothing(t *testing.T, r *Runtime) {
	t.Helper()
	ctx := context.Background()
	list, err := r.Images(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, image := range list {
		if err := r.RemoveImage(ctx, image.Reference); err != nil {
			t.Error(err)
		}
	}
	if left := stored(t, r); len(left) > 0 {
		t.Errorf("left in containerd:\n%s", strings.Join(left, "\n"))
	}
}

func noImages(t *testing.T, r *Runtime) {
	t.Helper()
	if list, err := r.Images(t.Context()); err != nil || len(list) > 0 {
		t.Errorf("images are %v, %v; want none", list, err)
	}
}

func from(references ...string) runtime.ImageSource {
	return runtime.ImageSource{Reference: strings.Join(references, "/")}
}
