package containerd

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/opencontainers/go-digest"

	"berth/runtime"
)

func wantResolve(t *testing.T, r *Runtime, source runtime.ImageSource, class error, words ...string) {
	t.Helper()
	found, err := r.Resolve(t.Context(), source)
	if !errors.Is(err, class) || class == nil && found == "" {
		t.Errorf("Resolve: %q, %v, want %v", found, err, class)
		return
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("the error says %q, want %q in it", err, word)
		}
	}
}

func TestRegistryTLS(t *testing.T) {
	registry := newTLSRegistry(t)
	plain := newTestRegistry(t)
	image := imageOf(t, "amd64", fileLayer(t, "file", 1000))
	registry.push(t, "lab/tls", "1", image)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: registry.Certificate().Raw})
	if err := os.WriteFile(ca, block, 0o600); err != nil {
		t.Fatal(err)
	}
	source := from(registry.host, "lab/tls:1")
	t.Run("unknown authority", func(t *testing.T) {
		r := shared.openPulling(t, func(c *Config) { c.Registries = []Registry{registry.config(), {Host: plain.host}} })
		wantRefused(t, r, source, runtime.ErrRegistry, "ca_file")
		wantRefused(t, r, from(plain.host, "lab/tls:1"), runtime.ErrRegistry, "plain_http")
	})
	t.Run("known authority", func(t *testing.T) {
		r := shared.openPulling(t, func(c *Config) {
			c.Registries = []Registry{{Host: registry.host, CAFile: ca}, {Host: "docker.io", Mirrors: []string{"https://" + registry.host}}}
		})
		if _, err := r.Pull(t.Context(), source, nil); err != nil {
			t.Errorf("Pull: %v", err)
		}
		registry.push(t, "library/tools", "latest", image)
		if stored, err := r.Pull(t.Context(), from("tools"), nil); err != nil || stored.Reference != "tools" {
			t.Errorf("Pull of a short name from a mirror: %+v, %v", stored, err)
		}
	})
}

// tokenServer gives a token for one login, and lets the registry want it.
func tokenServer(t *testing.T, username, password string) (server *httptest.Server, wants func(realm string) func(http.ResponseWriter, *http.Request) bool) {
	t.Helper()
	server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		given, secret, _ := r.BasicAuth()
		if r.Method == http.MethodPost {
			given, secret = r.PostFormValue("username"), r.PostFormValue("password")
		}
		if given != username || secret != password {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		fmt.Fprint(w, `{"token":"good","access_token":"good"}`)
	}))
	t.Cleanup(server.Close)
	return server, func(realm string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if r.Header.Get("Authorization") == "Bearer good" {
				return false
			}
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm=%q,service="test",scope="repository:lab/private:pull"`, realm))
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
	}
}

func TestRegistryToken(t *testing.T) {
	registry := newTestRegistry(t)
	registry.push(t, "lab/private", "1", imageOf(t, "amd64", fileLayer(t, "file", 1000)))
	tokens, wants := tokenServer(t, "ada", "open-sesame")
	registry.intercepting(wants(tokens.URL))
	login := runtime.ImageSource{Reference: registry.host + "/lab/private:1", Username: "ada", Password: "open-sesame"}
	wrong := login
	wrong.Password = "shut-sesame"

	t.Run("logins", func(t *testing.T) {
		r := shared.openPulling(t, func(c *Config) {
			c.Registries = []Registry{registry.config(), {Host: strings.TrimPrefix(tokens.URL, "http://"), PlainHTTP: true}}
		})
		wantRefused(t, r, from(login.Reference), runtime.ErrDenied, "login")
		wantRefused(t, r, wrong, runtime.ErrDenied, "login")
		if _, err := r.Pull(t.Context(), wrong, nil); err == nil || strings.Contains(err.Error(), "sesame") {
			t.Errorf("the error has the password: %v", err)
		}
		if _, err := r.Pull(t.Context(), login, nil); err != nil {
			t.Errorf("Pull with the right login: %v", err)
		}
	})
	t.Run("a realm on this host", func(t *testing.T) {
		r := shared.openPulling(t, func(c *Config) { c.Registries = []Registry{registry.config()} })
		for _, realm := range []string{"https://127.0.0.1:1/", "https://localhost:1/", "https://169.254.169.254/latest", "https://[::ffff:127.0.0.1]:1/"} {
			registry.intercepting(wants(realm))
			wantResolve(t, r, login, runtime.ErrDenied, "[[registry]]")
		}
		registry.intercepting(wants(tokens.URL)) // without TLS, and not configured
		wantResolve(t, r, login, runtime.ErrRegistry, "plain_http")
	})
	t.Run("a realm that leads the login on", func(t *testing.T) {
		var led sync.Map
		thief := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { led.Store(r.URL.String(), r) }))
		defer thief.Close()
		sends := httptest.NewServer(http.RedirectHandler(thief.URL, http.StatusTemporaryRedirect))
		defer sends.Close()
		r := shared.openPulling(t, func(c *Config) {
			c.Registries = []Registry{registry.config()}
			for _, u := range []string{thief.URL, sends.URL} {
				c.Registries = append(c.Registries, Registry{Host: strings.TrimPrefix(u, "http://"), PlainHTTP: true})
			}
		})
		registry.intercepting(wants(sends.URL))
		wantResolve(t, r, login, runtime.ErrRegistry, "another host")
		led.Range(func(where, _ any) bool {
			t.Errorf("the login was sent on to %v", where)
			return true
		})
	})
	t.Run("an endless answer", func(t *testing.T) {
		endless := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, `{"token":"`)
			for {
				if _, err := w.Write([]byte(strings.Repeat("x", 64<<10))); err != nil {
					return
				}
			}
		}))
		defer endless.Close()
		r := shared.openPulling(t, func(c *Config) {
			c.Registries = []Registry{registry.config(), {Host: strings.TrimPrefix(endless.URL, "http://"), PlainHTTP: true}}
		})
		registry.intercepting(wants(endless.URL))
		wantResolve(t, r, login, runtime.ErrInvalid, "more bytes")
	})
}

// TestRegistryRedirect: a store elsewhere is fine, but neither on this host nor
// with the registry's login.
func TestRegistryRedirect(t *testing.T) {
	registry, store := newTestRegistry(t), newTestRegistry(t)
	image := imageOf(t, "amd64", fileLayer(t, "file", 1000))
	registry.push(t, "lab/moved", "1", image)
	store.push(t, "lab/moved", "1", image)
	leads := func(to string) {
		registry.intercepting(func(w http.ResponseWriter, r *http.Request) bool {
			if username, _, _ := r.BasicAuth(); username != "ada" {
				w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
				w.WriteHeader(http.StatusUnauthorized)
				return true
			}
			if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
				http.Redirect(w, r, to+r.URL.Path+"?X-Signature=secret", http.StatusTemporaryRedirect)
				return true
			}
			return false
		})
	}
	source := runtime.ImageSource{Reference: registry.host + "/lab/moved:1", Username: "ada", Password: "open-sesame"}
	t.Run("to a store", func(t *testing.T) {
		r := shared.openPulling(t, func(c *Config) { c.Registries = []Registry{registry.config(), store.config()} })
		leads(store.URL)
		store.intercepting(nil)
		if _, err := r.Pull(t.Context(), source, nil); err != nil {
			t.Errorf("Pull: %v", err)
		}
		asked := store.asked(http.MethodGet, "")
		if len(asked) == 0 {
			t.Error("the store wasn't asked")
		}
		for _, request := range asked {
			if request.Header.Get("Authorization") != "" {
				t.Error("the store got the registry's login")
			}
		}
		wantNothing(t, r)
		store.intercepting(func(w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(http.StatusForbidden)
			return true
		})
		wantError(t, r, source, runtime.ErrDenied, "secret")
	})
	t.Run("to this host", func(t *testing.T) {
		r := shared.openPulling(t, func(c *Config) { c.Registries = []Registry{registry.config()} })
		leads(strings.Replace(store.URL, "http://", "https://", 1))
		wantError(t, r, source, runtime.ErrDenied, "secret")
		leads(store.URL)
		wantError(t, r, source, runtime.ErrRegistry, "secret")
	})
}

// wantError pulls and wants an error that doesn't have a word in it.
func wantError(t *testing.T, r *Runtime, source runtime.ImageSource, class error, never string) {
	t.Helper()
	_, err := r.Pull(t.Context(), source, nil)
	if !errors.Is(err, class) || strings.Contains(err.Error(), never) {
		t.Errorf("Pull: %v, want %q without %q", err, class, never)
	}
	dropLeases(t, r)
}

// dropLeases lets go of what is kept for the next try.
func dropLeases(t *testing.T, r *Runtime) {
	t.Helper()
	list, err := r.client.LeasesService().List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, lease := range list {
		r.endLease(t.Context(), lease)
	}
}

// TestRegistryMirrors: they are asked first, in order, and never with a login.
func TestRegistryMirrors(t *testing.T) {
	own, first, second := newTestRegistry(t), newTestRegistry(t), newTestRegistry(t)
	image := imageOf(t, "amd64", fileLayer(t, "file", 100_000))
	layer := digest.FromBytes(image.blobs[0]).String()
	all := []*testRegistry{own, first, second}
	fresh := func(t *testing.T) *Runtime {
		for _, registry := range all {
			registry.intercepting(nil)
		}
		return shared.openPulling(t, func(c *Config) {
			c.Registries = []Registry{{Host: own.host, PlainHTTP: true, Mirrors: []string{first.URL, second.URL + "/proxy"}}}
		})
	}
	source := runtime.ImageSource{Reference: own.host + "/lab/train:1", Username: "ada", Password: "open-sesame"}
	for _, registry := range []*testRegistry{own, first} {
		registry.push(t, "lab/train", "1", image)
	}
	mustPull := func(t *testing.T, r *Runtime) {
		t.Helper()
		if _, err := r.Pull(t.Context(), source, nil); err != nil {
			t.Errorf("Pull: %v", err)
		}
	}
	t.Run("the first has it", func(t *testing.T) {
		r := fresh(t)
		mustPull(t, r)
		if n := len(own.asked(http.MethodGet, "")) + len(second.asked(http.MethodGet, "")); n > 0 {
			t.Errorf("others were asked %d times", n)
		}
	})
	t.Run("none has it", func(t *testing.T) {
		r := fresh(t)
		first.intercepting(func(w http.ResponseWriter, r *http.Request) bool {
			http.NotFound(w, r)
			return true
		})
		mustPull(t, r)
		if n := len(second.asked(http.MethodHead, "/proxy/v2/lab/train/manifests/1")); n == 0 {
			t.Error("the second mirror wasn't asked below its path")
		}
		if n := len(own.asked(http.MethodGet, layer)); n != 1 {
			t.Errorf("the registry was asked for the layer %d times", n)
		}
	})
	t.Run("one wants a login", func(t *testing.T) {
		r := fresh(t)
		var given sync.Map
		first.intercepting(func(w http.ResponseWriter, r *http.Request) bool {
			given.Store(r.Header.Get("Authorization"), true)
			w.Header().Set("WWW-Authenticate", `Basic realm="mirror"`)
			w.WriteHeader(http.StatusUnauthorized)
			return true
		})
		mustPull(t, r)
		given.Range(func(authorization, _ any) bool {
			if authorization != "" {
				t.Errorf("a mirror got %q", authorization)
			}
			return true
		})
	})
	t.Run("one lies", func(t *testing.T) {
		r := fresh(t)
		first.intercepting(func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.HasSuffix(r.URL.Path, layer) {
				return false
			}
			w.Header().Set("Content-Length", fmt.Sprint(len(image.blobs[0])))
			_, _ = w.Write(make([]byte, len(image.blobs[0])))
			return true
		})
		mustPull(t, r)
	})
	for _, ranges := range []bool{true, false} {
		t.Run(fmt.Sprint("one broke off after half a lie, ranges: ", ranges), func(t *testing.T) {
			r := fresh(t)
			own.intercepting(func(w http.ResponseWriter, r *http.Request) bool {
				if !ranges || !strings.HasSuffix(r.URL.Path, layer) {
					return false // it doesn't know what "from here on" is
				}
				http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(image.blobs[0]))
				return true
			})
			first.intercepting(func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.HasSuffix(r.URL.Path, layer) {
					return false
				}
				w.Header().Set("Content-Length", fmt.Sprint(len(image.blobs[0])))
				_, _ = w.Write(make([]byte, len(image.blobs[0])/2))
				panic(http.ErrAbortHandler)
			})
			mustPull(t, r)
			if n := len(own.asked(http.MethodGet, layer)); n != 2 {
				t.Errorf("the registry was asked for the layer %d times; want the rest, then all", n)
			}
		})
	}
	t.Run("none answers", func(t *testing.T) {
		r := fresh(t)
		for _, registry := range []*testRegistry{first, second} {
			registry.Close()
		}
		mustPull(t, r)
		wantNothing(t, r)
		own.Close()
		wantResolve(t, r, source, runtime.ErrRegistry, "nothing listens", "before it, ", "mirror "+first.host)
	})
}

func TestRegistryAllowed(t *testing.T) {
	registry := newTestRegistry(t)
	registry.push(t, "lab/train", "1", imageOf(t, "amd64", fileLayer(t, "file", 10)))
	r := shared.openPulling(t, func(c *Config) {
		c.Registries, c.Allowed = []Registry{registry.config()}, []string{"GHCR.io"}
	})
	registry.intercepting(nil)
	wantRefused(t, r, from(registry.host, "lab/train:1"), runtime.ErrDenied, "allowed_registries")
	wantResolve(t, r, from("busybox"), runtime.ErrDenied, "docker.io")
	if asked := registry.asked(http.MethodHead, ""); len(asked) > 0 {
		t.Error("the registry was asked")
	}
	if !r.registries.allows("ghcr.io") {
		t.Error("case makes a difference")
	}
}

// TestRegistryLocal: what isn't configured leads nowhere near this host, whatever
// its name resolves to.
func TestRegistryLocal(t *testing.T) {
	registry := newTestRegistry(t)
	registry.push(t, "lab/train", "1", imageOf(t, "amd64", fileLayer(t, "file", 10)))
	r := shared.openPulling(t, func(*Config) {})
	_, port, _ := net.SplitHostPort(registry.host)
	for _, host := range []string{"localhost:" + port, registry.host, "169.254.169.254", "0.0.0.0:" + port} {
		wantResolve(t, r, from(host, "lab/train:1"), runtime.ErrDenied, "[[registry]]")
	}
	for text, want := range map[string]bool{
		"127.0.0.1": true, "127.8.9.1": true, "::1": true, "::ffff:127.0.0.1": true, "0.0.0.0": true, "::": true, "0.1.2.3": true,
		"169.254.169.254": true, "fe80::1%eth0": true, "224.0.0.1": true, "100.100.100.200": true, "fd00:ec2::254": true,
		"64:ff9b::7f00:1": true, "64:ff9b::a9fe:a9fe": true, "168.63.129.16": true,
		"10.0.0.1": false, "192.168.1.1": false, "8.8.8.8": false, "fd00::1": false, "2001:db8::1": false, "64:ff9b::808:808": false,
	} {
		if got := local(netip.MustParseAddr(text)); got != want {
			t.Errorf("local(%s) is %v", text, got)
		}
	}
}

func TestRegistryConfig(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "ca.pem")
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, []byte("none"), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, configured := range map[string][]Registry{
		"its host must be":     {{Host: "https://ghcr.io"}},
		"configured twice":     {{Host: "ghcr.io"}, {Host: "GHCR.io"}},
		"each mirror must be":  {{Host: "docker.io", Mirrors: []string{"mirror.lab:5000"}}},
		"without a login":      {{Host: "docker.io", Mirrors: []string{"https://ada:secret@mirror.lab"}}},
		"read its ca_file":     {{Host: "docker.io", CAFile: missing}},
		"holds no certificate": {{Host: "docker.io", CAFile: empty}},
	} {
		_, err := newRegistries(configured, nil)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%+v: %v, want %q", configured, err, want)
		}
	}
	g, err := newRegistries([]Registry{{Host: "Docker.IO", Mirrors: []string{"https://mirror.lab/v2/hub/", "http://10.0.0.7:5000"}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, a := range g.addresses("docker.io") {
		got = append(got, a.scheme+"://"+a.host+a.path)
	}
	if want := "https://mirror.lab/v2/hub http://10.0.0.7:5000/v2 https://registry-1.docker.io/v2"; strings.Join(got, " ") != want {
		t.Errorf("addresses are %v, want %s", got, want)
	}
	if !g.known["10.0.0.7:5000"] || !g.known["mirror.lab:443"] || g.plain["mirror.lab:443"] {
		t.Errorf("known: %v, plain: %v", g.known, g.plain)
	}
}

func TestParseReference(t *testing.T) {
	sum := "sha256:" + strings.Repeat("ab", 32)
	for _, test := range []struct {
		reference, digest, want string // empty: invalid
	}{
		{"busybox", "", "docker.io/library/busybox:latest"},
		{"lab/train:2", "", "docker.io/lab/train:2"},
		{"ghcr.io/lab/train", "", "ghcr.io/lab/train:latest"},
		{"registry.lab:5000/a/b:1", sum, "registry.lab:5000/a/b@" + sum},
		{"busybox:1@" + sum, "", "docker.io/library/busybox@" + sum},
		{"busybox@" + sum, sum, "docker.io/library/busybox@" + sum},
		{"busybox@" + sum, "sha256:" + strings.Repeat("cd", 32), ""},
		{"busybox", "sha256:12", ""},
		{"busybox", "sha512:" + strings.Repeat("ab", 64), ""},
		{"Busybox", "", ""}, {"https://ghcr.io/a", "", ""}, {"a/../../b", "", ""}, {strings.Repeat("ab", 32), "", ""}, {"", "", ""},
		{"a b", "", ""}, {"a:b:c", "", ""}, {strings.Repeat("a", 600), "", ""},
	} {
		named, err := parseReference(runtime.ImageSource{Reference: test.reference, Digest: test.digest})
		if test.want == "" {
			if !errors.Is(err, runtime.ErrInvalid) || len(err.Error()) > 500 {
				t.Errorf("%q, %q: %v, %v; want it refused in a few words", test.reference, test.digest, named, err)
			}
			continue
		}
		if err != nil || named.String() != test.want {
			t.Errorf("%q, %q: %v, %v; want %s", test.reference, test.digest, named, err, test.want)
		}
	}
}

// TestExplain: what isn't tried with a real registry.
func TestExplain(t *testing.T) {
	e := &endpoint{address: address{host: "r.lab"}, password: "sesame"}
	status := func(code int, where string) error {
		return remoteerrors.ErrUnexpectedStatus{StatusCode: code, Status: fmt.Sprint(code, " sesame"), RequestURL: where}
	}
	for _, test := range []struct {
		err  error
		want error
		word string
	}{
		{status(429, "https://r.lab/v2/a/manifests/1"), runtime.ErrRegistry, "how often"},
		{status(500, "https://r.lab/v2/a/manifests/1"), runtime.ErrRegistry, "500"},
		{errors.Join(status(403, "https://r.lab/v2/a/manifests/1"), docker.Errors{docker.Error{Message: strings.Repeat("sesame\n\x1b[31m", 100)}}), runtime.ErrDenied, "its words"},
		{status(404, "https://r.lab/token"), runtime.ErrRegistry, "404"},
		{status(404, "https://r.lab/v2/a/blobs/b"), runtime.ErrNotFound, "404"},
		{&url.Error{Op: "Get", URL: "https://store/?X-Signature=sesame", Err: &net.DNSError{Name: "store", IsNotFound: true}}, runtime.ErrRegistry, "can't be resolved"},
		{&url.Error{Op: "Get", URL: "https://store/?X-Signature=sesame", Err: context.DeadlineExceeded}, runtime.ErrRegistry, "in time"},
		{&url.Error{Op: "Get", URL: "https://store/?X-Signature=sesame", Err: errors.New("odd sesame")}, runtime.ErrRegistry, "odd …"},
	} {
		err := e.explain(fmt.Errorf("failed to do request: %w", test.err))
		if !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.word) || strings.Contains(err.Error(), "sesame") || !strings.Contains(err.Error(), "r.lab") ||
			len(err.Error()) > 1000 || strings.ContainsAny(err.Error(), "\n\x1b") {
			t.Errorf("%v becomes %v, want %v and %q", test.err, err, test.want, test.word)
		}
	}
}
