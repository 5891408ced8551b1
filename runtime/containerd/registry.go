package containerd

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/remotes/docker"
)

// Registry says how one registry is reached.
type Registry struct {
	Host      string   // as references have it, such as docker.io or registry.lab:5000
	Mirrors   []string // URLs, asked before it, in this order
	PlainHTTP bool     // it doesn't speak TLS
	CAFile    string   // PEM, of it and its mirrors; besides the host's own
}

// registries is what the configuration says of registries, and the connections
// to them. It never changes.
type registries struct {
	allowed []string // hosts as in references; empty: all
	mirrors map[string][]address
	known   map[string]bool // host:port that the configuration names
	plain   map[string]bool // host:port that may be asked without TLS
	common  *http.Transport
	special map[string]*http.Transport // by host:port: those with a CA of their own
}

// address is where the registry protocol is spoken.
type address struct {
	scheme, host, path string
}

// hostPort is how connections are told apart.
func (a address) hostPort() string { return hostPort(a.scheme, a.host) }

func hostPort(scheme, host string) string {
	host = strings.ToLower(host)
	if parsed := (&url.URL{Host: host}); parsed.Port() == "" {
		port := "443"
		if scheme == "http" {
			port = "80"
		}
		return net.JoinHostPort(parsed.Hostname(), port)
	}
	return host
}

// newRegistries checks the configuration and reads its files.
func newRegistries(configured []Registry, allowed []string) (*registries, error) {
	g := &registries{
		mirrors: map[string][]address{},
		known:   map[string]bool{},
		plain:   map[string]bool{},
		special: map[string]*http.Transport{},
	}
	for _, name := range allowed {
		g.allowed = append(g.allowed, strings.ToLower(name))
	}
	g.common = g.transport(nil)
	for _, proxy := range proxies() {
		g.known[proxy] = true
	}
	for _, registry := range configured {
		if err := g.add(registry); err != nil {
			return nil, fmt.Errorf("registry %q: %w", registry.Host, err)
		}
	}
	return g, nil
}

func (g *registries) add(registry Registry) error {
	name := strings.ToLower(registry.Host)
	if name == "" || strings.ContainsAny(name, "/@ ") {
		return errors.New("its host must be as in references, such as docker.io or registry.lab:5000")
	}
	if g.mirrors[name] != nil {
		return errors.New("it is configured twice")
	}
	addresses := []address{}
	for _, text := range registry.Mirrors {
		mirror, err := parseMirror(text)
		if err != nil {
			return err
		}
		addresses = append(addresses, mirror)
	}
	g.mirrors[name] = addresses
	var roots *x509.CertPool
	if registry.CAFile != "" {
		var err error
		if roots, err = readRoots(registry.CAFile); err != nil {
			return err
		}
	}
	for _, a := range append(slices.Clone(addresses), g.own(name, registry.PlainHTTP)) {
		key := a.hostPort()
		g.known[key] = true
		if a.scheme == "http" {
			g.plain[key] = true
		}
		if roots != nil {
			g.special[key] = g.transport(roots)
		}
	}
	return nil
}

func parseMirror(text string) (address, error) {
	parsed, err := url.Parse(text)
	if err != nil || parsed.Scheme != "http" && parsed.Scheme != "https" || parsed.Host == "" || parsed.User != nil || parsed.RawQuery != "" {
		return address{}, errors.New("each mirror must be a URL without a login, such as https://mirror.lab:5000")
	}
	root := path.Clean("/" + parsed.Path)
	if root != "/v2" && !strings.HasPrefix(root, "/v2/") {
		root = path.Join(root, "v2")
	}
	return address{scheme: parsed.Scheme, host: parsed.Host, path: root}, nil
}

func readRoots(file string) (*x509.CertPool, error) {
	content, err := os.ReadFile(file) // #nosec G304 -- the operator names it
	if err != nil {
		return nil, fmt.Errorf("read its ca_file: %w", err)
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("this host's certificate authorities: %w", err)
	}
	if !roots.AppendCertsFromPEM(content) {
		return nil, fmt.Errorf("its ca_file %s holds no certificate in PEM form", file)
	}
	return roots, nil
}

// own is where a registry itself is, by its name in references.
func (g *registries) own(name string, plain bool) address {
	host, _ := docker.DefaultHost(name) // never an error
	if plain {
		return address{scheme: "http", host: host, path: "/v2"}
	}
	return address{scheme: "https", host: host, path: "/v2"}
}

// addresses are where to ask for images of a registry, its own the last.
func (g *registries) addresses(name string) []address {
	name = strings.ToLower(name)
	plain := g.plain[g.own(name, true).hostPort()]
	return append(slices.Clone(g.mirrors[name]), g.own(name, plain))
}

// allows says whether images of a registry may be here.
func (g *registries) allows(name string) bool {
	return len(g.allowed) == 0 || slices.Contains(g.allowed, strings.ToLower(name))
}

// close lets go of idle connections.
func (g *registries) close() {
	g.common.CloseIdleConnections()
	for _, transport := range g.special {
		transport.CloseIdleConnections()
	}
}
