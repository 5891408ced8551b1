package containerd

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"unicode"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"

	"berth/runtime"
)

// maxWords bounds an error's text, in characters: a registry's own words may be
// in it.
const maxWords = 500

// explain says in the contract's classes why a registry or a mirror didn't give
// something. The text is made anew: that of the libraries has whole URLs, which
// may carry somebody's signature.
func (e *endpoint) explain(err error) error {
	if errors.Is(err, runtime.ErrInvalid) {
		return err
	}
	text, class := classify(err)
	if e.password != "" {
		text = strings.ReplaceAll(text, e.password, "…")
	}
	text = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, text)
	return fmt.Errorf("%w: %s: %.*s", class, e.name(), maxWords, text)
}

// classify gives an error's class and what is to be done.
func classify(err error) (text string, class error) {
	var status remoteerrors.ErrUnexpectedStatus
	switch {
	case errors.Is(err, errLocal):
		return innermost(err).Error() +
			"; if the registry really is there, name that host and port in a [[registry]] of the daemon's configuration", runtime.ErrDenied
	case errors.Is(err, errPlain):
		return "it leads to " + innermost(err).Error() +
			"; if that is right, set plain_http in a [[registry]] of that host in the daemon's configuration", runtime.ErrRegistry
	case errors.Is(err, errLong) || errdefs.IsFailedPrecondition(err):
		return "it serves more bytes than it said, or than any image needs", runtime.ErrInvalid
	case errors.As(err, &status):
		return unexpected(status, err)
	case errors.Is(err, docker.ErrInvalidAuthorization):
		return "it wants a login, or another one, for this image", runtime.ErrDenied
	case errdefs.IsNotFound(err):
		return "it has no such image or tag", runtime.ErrNotFound
	}
	return unreached(err), runtime.ErrRegistry
}

// unexpected is about an answer that has an unexpected status.
func unexpected(status remoteerrors.ErrUnexpectedStatus, err error) (text string, class error) {
	var words docker.Errors
	said := ""
	if errors.As(err, &words) {
		said = "; its words: " + words.Error()
	}
	text = fmt.Sprintf("it answers %.50s", status.Status)
	aboutContent := strings.Contains(status.RequestURL, "/manifests/") || strings.Contains(status.RequestURL, "/blobs/")
	switch {
	case status.StatusCode == http.StatusUnauthorized || status.StatusCode == http.StatusForbidden:
		return text + "; it wants a login, or another one, for this image" + said, runtime.ErrDenied
	case status.StatusCode == http.StatusNotFound && aboutContent:
		return text + said, runtime.ErrNotFound
	case status.StatusCode == http.StatusTooManyRequests:
		return text + "; it limits how often it is asked: log in, use a mirror, or try later" + said, runtime.ErrRegistry
	}
	return text + said, runtime.ErrRegistry
}

// unreached is about a connection that failed.
func unreached(err error) string {
	var (
		dns       *net.DNSError
		unknown   x509.UnknownAuthorityError
		wrongName x509.HostnameError
		invalid   x509.CertificateInvalidError
		noTLS     tls.RecordHeaderError
		timeout   net.Error
	)
	switch {
	case errors.As(err, &dns):
		return fmt.Sprintf("its name %.100q can't be resolved; check the name, and this host's DNS", dns.Name)
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nothing listens there; check the port, and that the registry runs"
	case errors.As(err, &unknown):
		return "its certificate is of an authority that this host doesn't know; set ca_file in a [[registry]] of that host in the daemon's configuration"
	case errors.As(err, &wrongName):
		return "its certificate is for another name"
	case errors.As(err, &invalid):
		return "its certificate isn't valid: " + invalid.Error()
	case errors.As(err, &noTLS), strings.Contains(err.Error(), "HTTP response to HTTPS client"):
		return "it doesn't speak TLS; if that is right, set plain_http in a [[registry]] of that host in the daemon's configuration"
	case errors.Is(err, errRedirect):
		return "it " + errRedirect.Error()
	case errors.As(err, &timeout) && timeout.Timeout():
		return "it doesn't answer in time; check the network between, and whether this host needs a proxy"
	}
	return fmt.Sprintf("it can't be reached, or isn't a registry: %v", innermost(err))
}

// innermost is what the HTTP client says without the URL.
func innermost(err error) error {
	var request *url.Error
	var dial *net.OpError
	if errors.As(err, &request) {
		err = request.Err
	}
	if errors.As(err, &dial) {
		err = dial.Err
	}
	return err
}
