package containerd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"time"
)

// Bounds on a registry that doesn't answer.
const (
	dialTimeout   = 10 * time.Second
	headerTimeout = 30 * time.Second
	stallTimeout  = time.Minute // between two parts of a blob
	maxRedirects  = 10
)

var (
	errLocal    = errors.New("an address of this host itself, of its links, or of a cloud's metadata service")
	errPlain    = errors.New("without TLS")
	errLong     = errors.New("more bytes than any image needs")
	errRedirect = errors.New("redirected too often, or with a login to another host")
)

// metadataAddresses are those of clouds that aren't link-local.
var metadataAddresses = []netip.Addr{
	netip.MustParseAddr("100.100.100.200"), netip.MustParseAddr("168.63.129.16"),
	netip.MustParseAddr("192.0.0.192"), netip.MustParseAddr("fd00:ec2::254"), netip.MustParseAddr("fd20:ce::254"),
}

// nat64 addresses hold an IPv4 address in their last four bytes.
var nat64 = netip.MustParsePrefix("64:ff9b::/96")

// local says whether an address is none that a name from outside may lead to.
func local(ip netip.Addr) bool {
	ip = ip.Unmap().WithZone("")
	if nat64.Contains(ip) {
		bytes := ip.As16()
		ip = netip.AddrFrom4([4]byte(bytes[12:]))
	}
	if ip.IsLoopback() || ip.IsUnspecified() || ip.IsLinkLocalUnicast() || ip.IsMulticast() || ip.Is4() && ip.As4()[0] == 0 {
		return true
	}
	for _, metadata := range metadataAddresses {
		if ip == metadata {
			return true
		}
	}
	return false
}

// refuseLocal looks at the very address that is about to be connected to, so no
// answer of DNS gets around it.
func refuseLocal(_, address string, _ syscall.RawConn) error {
	target, err := netip.ParseAddrPort(address)
	if err != nil || local(target.Addr()) {
		return fmt.Errorf("%s is %w", address, errLocal)
	}
	return nil
}

// transport makes one with more authorities than the host's, or none more. It
// speaks HTTP/1.1, as one connection per layer is wanted.
func (g *registries) transport(roots *x509.CertPool) *http.Transport {
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           g.dial,
		TLSClientConfig:       &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:   dialTimeout,
		ResponseHeaderTimeout: headerTimeout,
		IdleConnTimeout:       30 * time.Second,
		MaxIdleConnsPerHost:   parallelLayers,
	}
}

// dial connects to what the configuration names, wherever that is, and else to
// other hosts only.
func (g *registries) dial(ctx context.Context, network, target string) (net.Conn, error) {
	dialer := net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}
	if !g.known[strings.ToLower(target)] {
		dialer.Control = refuseLocal
	}
	conn, err := dialer.DialContext(ctx, network, target)
	if err != nil {
		return nil, err
	}
	return &patientConn{Conn: conn}, nil
}

// patientConn gives up when nothing comes for a while.
type patientConn struct {
	net.Conn
}

func (c *patientConn) Read(p []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(stallTimeout)); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

// proxies are those that the environment names. Through one, only the literal
// addresses of targets can be looked at.
func proxies() []string {
	var found []string
	for _, scheme := range []string{"http", "https"} {
		request := &http.Request{URL: &url.URL{Scheme: scheme, Host: "registry.invalid"}}
		if proxy, err := http.ProxyFromEnvironment(request); err == nil && proxy != nil {
			found = append(found, hostPort(proxy.Scheme, proxy.Host))
		}
	}
	return found
}

// RoundTrip makes registries an http.RoundTripper: each request, also one after a
// redirect, is checked and takes the connection of its host.
func (g *registries) RoundTrip(request *http.Request) (*http.Response, error) {
	key := hostPort(request.URL.Scheme, request.URL.Host)
	if err := g.check(request.URL, key); err != nil {
		if request.Body != nil {
			request.Body.Close()
		}
		return nil, err
	}
	if transport := g.special[key]; transport != nil {
		return transport.RoundTrip(request)
	}
	return g.common.RoundTrip(request)
}

func (g *registries) check(target *url.URL, key string) error {
	if target.Scheme != "https" && !g.plain[key] {
		return fmt.Errorf("%s %w", target.Host, errPlain)
	}
	if ip, err := netip.ParseAddr(target.Hostname()); err == nil && local(ip) && !g.known[key] {
		return fmt.Errorf("%s is %w", target.Host, errLocal)
	}
	return nil
}

// documents is the client for what is small and may be kept in memory.
func (g *registries) documents() *http.Client {
	return &http.Client{Transport: shortAnswers{g}, CheckRedirect: forgetLogin}
}

// blobs is the client for contents whose size the reader bounds.
func (g *registries) blobs() *http.Client {
	return &http.Client{Transport: g, CheckRedirect: forgetLogin}
}

// tokens is the client for logging in. Its requests carry the password, so it
// stays at the host that the registry named.
func (g *registries) tokens() *http.Client {
	return &http.Client{Transport: shortAnswers{g}, CheckRedirect: func(request *http.Request, via []*http.Request) error {
		if len(via) >= maxRedirects || request.URL.Host != via[0].URL.Host || request.URL.Scheme != via[0].URL.Scheme {
			return errRedirect
		}
		return nil
	}}
}

// forgetLogin follows a redirect to another host, such as a registry's store,
// without what was meant for the first.
func forgetLogin(request *http.Request, via []*http.Request) error {
	if len(via) >= maxRedirects {
		return errRedirect
	}
	if request.URL.Host != via[0].URL.Host || request.URL.Scheme != via[0].URL.Scheme {
		request.Header.Del("Authorization")
	}
	return nil
}

// shortAnswers bounds what is read of an answer.
type shortAnswers struct {
	http.RoundTripper
}

func (s shortAnswers) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := s.RoundTripper.RoundTrip(request)
	if err == nil {
		response.Body = &shortBody{ReadCloser: response.Body, left: maxDocument}
	}
	return response, err
}

type shortBody struct {
	io.ReadCloser
	left int64
}

func (b *shortBody) Read(p []byte) (int, error) {
	if b.left < 0 {
		return 0, errLong
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left+1)])
	if b.left -= int64(n); b.left < 0 {
		return n, errLong
	}
	return n, err
}
