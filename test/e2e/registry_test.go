package e2e

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"berth/workspace"
)

// lab is a registry of the test's own, with a password.
type lab struct {
	t        *testing.T
	host     string
	down     atomic.Bool
	resolves atomic.Bool            // while it is down, all the same
	damage   atomic.Pointer[string] // digest of a blob that it gives damaged
	slow     atomic.Bool            // sends as a network would, so that there is progress to tell
}

const labPassword = "correct-horse"

func newLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{t: t}
	store := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if l.down.Load() && (!l.resolves.Load() || strings.Contains(r.URL.Path, "/blobs/")) {
			panic(http.ErrAbortHandler)
		}
		user, password, _ := r.BasicAuth()
		if user != "ada" || password != labPassword {
			w.Header().Set("WWW-Authenticate", `Basic realm="lab"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if bad := l.damage.Load(); bad != nil && r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, *bad) {
			_, _ = w.Write(bytes.Repeat([]byte("x"), 1<<16))
			return
		}
		if l.slow.Load() {
			w = slowly{w}
		}
		store.ServeHTTP(w, r)
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	t.Cleanup(server.Close)
	l.host = server.Listener.Addr().String()
	return l
}

// slowly takes its time over what is large.
type slowly struct{ http.ResponseWriter }

func (s slowly) Write(p []byte) (written int, err error) {
	for part := range slices.Chunk(p, 32<<10) {
		if len(part) == 32<<10 {
			time.Sleep(30 * time.Millisecond)
		}
		n, err := s.ResponseWriter.Write(part)
		if written += n; err != nil {
			return written, err
		}
	}
	return written, nil
}

// config is a file that names the registry.
func (l *lab) config(d *daemon) string {
	l.t.Helper()
	path := filepath.Join(d.dir, "berthd.toml")
	if err := os.WriteFile(path, fmt.Appendf(nil, "[[registry]]\nhost = %q\nplain_http = true\n", l.host), 0o600); err != nil {
		l.t.Fatal(err)
	}
	return path
}

// push stores an image past the password, and gives its reference and digest.
func (l *lab) push(repository, tag string, image v1.Image) (reference, digest string) {
	l.t.Helper()
	layers, err := image.Layers()
	if err != nil {
		l.t.Fatal(err)
	}
	config, err := partial.ConfigLayer(image)
	if err != nil {
		l.t.Fatal(err)
	}
	for _, layer := range append(layers, config) {
		hash, err := layer.Digest()
		if err != nil {
			l.t.Fatal(err)
		}
		content, err := layer.Compressed()
		if err != nil {
			l.t.Fatal(err)
		}
		l.send(http.MethodPost, repository+"/blobs/uploads/?digest="+hash.String(), "application/octet-stream", content)
	}
	manifest, err := image.RawManifest()
	if err != nil {
		l.t.Fatal(err)
	}
	kind, err := image.MediaType()
	if err != nil {
		l.t.Fatal(err)
	}
	l.send(http.MethodPut, repository+"/manifests/"+tag, string(kind), bytes.NewReader(manifest))
	hash, err := image.Digest()
	if err != nil {
		l.t.Fatal(err)
	}
	return l.host + "/" + repository + ":" + tag, hash.String()
}

func (l *lab) send(method, path, kind string, content io.Reader) {
	l.t.Helper()
	request, err := http.NewRequestWithContext(l.t.Context(), method, "http://"+l.host+"/v2/"+path, content)
	if err != nil {
		l.t.Fatal(err)
	}
	request.Header.Set("Content-Type", kind)
	request.SetBasicAuth("ada", labPassword)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		l.t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode >= 300 {
		answer, _ := io.ReadAll(response.Body)
		l.t.Fatalf("%s %s: %s: %s", method, path, response.Status, answer)
	}
}

// demo is the workload's image with one more layer.
func demo(t *testing.T, arch string, more v1.Layer) v1.Image {
	t.Helper()
	image := appended(t, empty.Image, demoLayer(t))
	if more != nil {
		image = appended(t, image, more)
	}
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config.OS, config.Architecture = "linux", arch
	config.Config = v1.Config{Entrypoint: []string{"/bin/workload"}, Cmd: []string{"count"}, Env: []string{"PATH=/bin"}, WorkingDir: "/tmp"}
	image, err = mutate.ConfigFile(image, config)
	if err != nil {
		t.Fatal(err)
	}
	return image
}

func appended(t *testing.T, image v1.Image, layer v1.Layer) v1.Image {
	t.Helper()
	image, err := mutate.AppendLayers(image, layer)
	if err != nil {
		t.Fatal(err)
	}
	return image
}

// demoLayer is the layer of the workload's image, out of its archive.
func demoLayer(t *testing.T) v1.Layer {
	t.Helper()
	var largest []byte
	for in := tar.NewReader(bytes.NewReader(host.archive)); ; {
		_, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		content, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		if len(content) > len(largest) {
			largest = content
		}
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(largest)), nil })
	if err != nil {
		t.Fatal(err)
	}
	return layer
}

// fileLayer is a layer of one file.
func fileLayer(t *testing.T, name string, content []byte) v1.Layer {
	t.Helper()
	var plain bytes.Buffer
	w := tar.NewWriter(&plain)
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content))}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(plain.Bytes())), nil },
		tarball.WithCompressionLevel(gzip.BestSpeed))
	if err != nil {
		t.Fatal(err)
	}
	return layer
}

// fromLab makes a template of one of its images and tries an instance of it.
func (d *daemon) fromLab(name, reference string) error {
	d.t.Helper()
	d.made(workspace.Template{Name: name, Image: reference})
	_, err := d.client.CreateInstance(d.t.Context(), newInstance(name, name, 0))
	return err
}

// An image that only a registry has: with the login it is fetched, pinned and
// run; what the registry gets wrong is said.
func TestRegistry(t *testing.T) {
	l := newLab(t)
	d := newDaemon(t)
	d.args = []string{"--config", l.config(d)}
	noise, err := random.Layer(8<<20, "application/vnd.oci.image.layer.v1.tar+gzip")
	if err != nil {
		t.Fatal(err)
	}
	good, digest := l.push("team/good", "1", demo(t, "amd64", nil))
	d.up()

	err = d.fromLab("none", good)
	says(t, fmt.Sprint(err), l.host, good, "login", "berth registry login "+l.host)
	if workspace.CodeOf(err) != workspace.CodeDenied && workspace.CodeOf(err) != workspace.CodeInvalid {
		t.Errorf("without a login: %v", err)
	}
	login := func(password string) {
		if _, err := d.client.SetRegistry(t.Context(), l.host, workspace.RegistryLoginChange{Username: "ada", Password: password}); err != nil {
			t.Fatal(err)
		}
	}
	login("wrong-horse")
	err = d.fromLab("wrong", good)
	says(t, fmt.Sprint(err), l.host, good, "login")
	if strings.Contains(fmt.Sprint(err), "wrong-horse") {
		t.Errorf("the error has the password: %v", err)
	}
	login(labPassword)

	// With progress, before it is asked to run.
	var seen []workspace.PullProgress
	image, err := d.client.PullImage(t.Context(), workspace.PullRequest{Reference: good}, func(p workspace.PullProgress) { seen = append(seen, p) })
	if err != nil {
		t.Fatal(err)
	}
	if image.Digest != digest || len(seen) == 0 {
		t.Errorf("pulled %s with progress %+v; pushed %s", image.Digest, seen, digest)
	}
	if err := d.client.RemoveImage(t.Context(), good, ""); err != nil {
		t.Fatal(err)
	}
	if err := d.fromLab("good", good); err != nil {
		t.Fatal(err)
	}
	inst := d.waitFor("good", "running")
	run, err := d.client.Run(t.Context(), inst.Run)
	if err != nil || run.Spec.ImageDigest != digest {
		t.Errorf("it runs %s, pushed was %s (%v)", run.Spec.ImageDigest, digest, err)
	}
	// Another image under the same name isn't this instance's.
	l.push("team/good", "1", demo(t, "amd64", noise))
	d.stop("good")
	if again := d.startAgain("good"); again.Run == inst.Run {
		t.Error("it isn't another run")
	} else if run, err := d.client.Run(t.Context(), again.Run); err != nil || run.Spec.ImageDigest != digest {
		t.Errorf("after the tag was moved it runs %s, it is made of %s (%v)", run.Spec.ImageDigest, digest, err)
	}

	d.badImages(l)

	// One that is away is said to be; if it goes away later, it is asked again
	// until it is back.
	away, _ := l.push("team/away", "1", demo(t, "amd64", noise))
	l.down.Store(true)
	err = d.fromLab("away", away)
	says(t, fmt.Sprint(err), l.host, "can't be reached")
	l.resolves.Store(true)
	if err := d.fromLab("away", away); err != nil {
		t.Fatal(err)
	}
	says(t, d.status("away", workspace.StatusPending, "registry_unavailable").Message, l.host, away, "tried again")
	l.down.Store(false)
	d.waitFor("away", "running")
}

// badImages are refused with what is wrong, and nothing of them stays.
func (d *daemon) badImages(l *lab) {
	d.t.Helper()
	stored := lines(d.t, ctr("images", "ls", "-q"))
	foreign, _ := l.push("team/foreign", "1", demo(d.t, "arm64", nil))
	noise, err := random.Layer(1<<16, "application/vnd.oci.image.layer.v1.tar+gzip")
	if err != nil {
		d.t.Fatal(err)
	}
	damaged, _ := l.push("team/damaged", "1", demo(d.t, "amd64", noise))
	hash, err := noise.Digest()
	if err != nil {
		d.t.Fatal(err)
	}
	bad := hash.String()
	l.damage.Store(&bad)
	for name, want := range map[string]struct {
		reference, reason string
		words             []string
	}{
		"foreign": {foreign, "wrong_platform", []string{"processors", "arm64", "amd64"}},
		"damaged": {damaged, "image_invalid", []string{l.host, "something else", "sha256:"}},
	} {
		err := d.fromLab(name, want.reference)
		message := ""
		if err != nil {
			message = err.Error()
		} else {
			message = d.status(name, workspace.StatusFailed, want.reason).Message
		}
		says(d.t, message, append(want.words, want.reference)...)
	}
	_, err = d.client.PullImage(d.t.Context(), workspace.PullRequest{Reference: damaged}, nil)
	if workspace.CodeOf(err) != workspace.CodeInvalid {
		d.t.Errorf("berth image pull of a damaged image: %v", err)
	}
	d.eventually("nothing of them is stored", func(context.Context) error {
		if n := lines(d.t, ctr("images", "ls", "-q")); n != stored {
			return fmt.Errorf("%d images are stored, before there were %d", n, stored)
		}
		return nil
	})
}
