package main

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"
)

// Limits of the address for scrapes, which other hosts reach.
const (
	scrapeHeaderTime = 5 * time.Second
	scrapeReadTime   = 10 * time.Second
	scrapeWriteTime  = 30 * time.Second
	scrapeIdleTime   = 2 * time.Minute
	scrapeMaxHeader  = 16 << 10
	maxToken         = 4 << 10
)

// listenMetrics opens the address for a Prometheus on another host, nil when
// none is wanted. What a scrape would need and isn't there is an error now.
func listenMetrics(c MetricsConfig, log *slog.Logger) (net.Listener, error) {
	if c.Listen == "" {
		return nil, nil
	}
	if c.BearerFile != "" {
		if _, err := readToken(c.BearerFile); err != nil {
			return nil, fmt.Errorf("metrics.bearer_file: %w", err)
		}
	}
	var encryption *tls.Config
	if c.TLSCert != "" {
		pair := &keyPair{cert: c.TLSCert, key: c.TLSKey}
		if _, err := pair.get(nil); err != nil {
			return nil, fmt.Errorf("metrics.tls_cert, tls_key: %w", err)
		}
		encryption = &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: pair.get}
	}
	l, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return nil, fmt.Errorf("metrics.listen: %w", err)
	}
	if encryption != nil {
		return tls.NewListener(l, encryption), nil
	}
	if ap, err := netip.ParseAddrPort(c.Listen); err == nil && !ap.Addr().IsLoopback() {
		log.Warn("metrics are served to other hosts without TLS: set metrics.tls_cert and tls_key", "address", c.Listen, "token", c.BearerFile != "")
	}
	return l, nil
}

// keyPair is a certificate with its key, read again when its file has changed:
// who renews it need not restart berthd.
type keyPair struct {
	cert, key string

	mu     sync.Mutex
	loaded *tls.Certificate
	of     time.Time // when the files were changed last, as of loaded
}

// get gives the pair that was good last while the files are not.
func (k *keyPair) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	changed, err := latestChange(k.cert, k.key)
	if err == nil && k.loaded != nil && changed.Equal(k.of) {
		return k.loaded, nil
	}
	if err == nil {
		var pair tls.Certificate
		if pair, err = tls.LoadX509KeyPair(k.cert, k.key); err == nil {
			k.loaded, k.of = &pair, changed
		}
	}
	if k.loaded == nil {
		return nil, err
	}
	return k.loaded, nil
}

func latestChange(files ...string) (latest time.Time, err error) {
	for _, file := range files {
		info, err := os.Stat(file)
		if err != nil {
			return time.Time{}, err
		}
		if info.ModTime().After(latest) {
			latest = info.ModTime()
		}
	}
	return latest, nil
}

// readToken reads the token that a scrape must bring, each time anew, so that a
// new one counts at once.
func readToken(path string) (string, error) {
	f, err := os.Open(path) // #nosec G304 -- the operator names it
	if err != nil {
		return "", err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxToken+1))
	token := strings.TrimSpace(string(raw))
	switch {
	case err != nil:
		return "", err
	case len(raw) > maxToken:
		return "", fmt.Errorf("%s is larger than %d bytes", path, maxToken)
	case token == "":
		return "", fmt.Errorf("%s holds no token: write one into it, such as from `openssl rand -hex 32`", path)
	}
	return token, nil
}

// remoteMetrics serves GET /metrics to who brings the token, and nothing else.
func remoteMetrics(scrape http.Handler, tokenFile string, log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || r.URL.Path != "/metrics" {
			http.NotFound(w, r)
			return
		}
		if tokenFile != "" {
			token, err := readToken(tokenFile)
			if err != nil {
				log.Error("nobody can scrape: the token can't be read", "file", tokenFile, "err", err)
			}
			if err != nil || !bears(r, token) {
				w.Header().Set("WWW-Authenticate", `Bearer realm="berth metrics"`)
				http.Error(w, "a bearer token is needed", http.StatusUnauthorized)
				return
			}
		}
		scrape.ServeHTTP(w, r)
	})
}

// bears compares in a time that says nothing of the token, its length included.
func bears(r *http.Request, token string) bool {
	scheme, given, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	got, want := sha256.Sum256([]byte(given)), sha256.Sum256([]byte(token))
	return subtle.ConstantTimeCompare(got[:], want[:]) == 1 && strings.EqualFold(scheme, "Bearer")
}

// serveMetrics answers scrapes until ctx ends. One in hand then is cut off: the
// next daemon answers the next.
func serveMetrics(ctx context.Context, l net.Listener, h http.Handler, log *slog.Logger) error {
	server := &http.Server{
		Handler: h, ReadHeaderTimeout: scrapeHeaderTime, ReadTimeout: scrapeReadTime, WriteTimeout: scrapeWriteTime,
		IdleTimeout: scrapeIdleTime, MaxHeaderBytes: scrapeMaxHeader, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve metrics on %s: %w", l.Addr(), err)
	}
	return nil
}
