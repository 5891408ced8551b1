package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// certificate writes a certificate for 127.0.0.1 and its key into dir, with the
// given number, and gives the files.
func certificate(t *testing.T, dir string, number int64) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(number), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	write(t, cert, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	write(t, key, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})))
	// The file system's clock is coarse; a renewal is never in the same moment.
	changed := time.Unix(1_700_000_000+number, 0)
	if err := os.Chtimes(key, changed, changed); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(cert, changed, changed); err != nil {
		t.Fatal(err)
	}
	return cert, key
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// served starts the address for scrapes, and gives it.
func served(t *testing.T, c MetricsConfig) string {
	t.Helper()
	c.Listen = "127.0.0.1:0"
	log := slog.New(slog.DiscardHandler)
	l, err := listenMetrics(c, log)
	if err != nil {
		t.Fatal(err)
	}
	scrape := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "berth_up 1\n") })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- serveMetrics(ctx, l, remoteMetrics(scrape, c.BearerFile, log), log) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

// ask makes one request over a connection of its own.
func ask(t *testing.T, method, url, authorization string, trust *tls.Config) (*http.Response, error) {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: trust}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	res, err := transport.RoundTrip(req)
	if err == nil {
		_, _ = io.Copy(io.Discard, res.Body)
		res.Body.Close()
	}
	return res, err
}

func trusting(t *testing.T, cert string) *tls.Config {
	t.Helper()
	raw, err := os.ReadFile(cert)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(raw)
	return &tls.Config{RootCAs: pool}
}

func TestRemoteScrape(t *testing.T) {
	dir := t.TempDir()
	cert, key := certificate(t, dir, 1)
	token := filepath.Join(dir, "token")
	write(t, token, "s3cret\n")
	address := served(t, MetricsConfig{TLSCert: cert, TLSKey: key, BearerFile: token})
	trust := trusting(t, cert)
	for _, tc := range []struct {
		method, path, authorization string
		want                        int
	}{
		{"GET", "/metrics", "Bearer s3cret", 200},
		{"GET", "/metrics", "bearer s3cret", 200},
		{"GET", "/metrics", "", 401},
		{"GET", "/metrics", "Bearer s3cre", 401},
		{"GET", "/metrics", "Bearer s3cret ", 200}, // blanks at the end of a header are none of it
		{"GET", "/metrics", "Bearer", 401},
		{"GET", "/metrics", "Basic s3cret", 401},
		{"POST", "/metrics", "Bearer s3cret", 404},
		{"GET", "/", "Bearer s3cret", 404},
		{"GET", "/metrics/", "Bearer s3cret", 404},
		{"GET", "/livez", "Bearer s3cret", 404},
		{"GET", "/berth/v1/instances", "Bearer s3cret", 404},
	} {
		res, err := ask(t, tc.method, "https://"+address+tc.path, tc.authorization, trust)
		if err != nil || res.StatusCode != tc.want {
			t.Errorf("%s %s with %q: %v %v, want %d", tc.method, tc.path, tc.authorization, res, err, tc.want)
			continue
		}
		if res.TLS.Version != tls.VersionTLS13 {
			t.Errorf("TLS version %x", res.TLS.Version)
		}
		if tc.want == 401 && !strings.HasPrefix(res.Header.Get("WWW-Authenticate"), "Bearer") {
			t.Errorf("WWW-Authenticate: %q", res.Header.Get("WWW-Authenticate"))
		}
	}
	old := trust.Clone()
	old.MaxVersion = tls.VersionTLS12
	if _, err := ask(t, "GET", "https://"+address+"/metrics", "Bearer s3cret", old); err == nil {
		t.Error("TLS 1.2 is accepted")
	}
	if res, err := ask(t, "GET", "http://"+address+"/metrics", "Bearer s3cret", nil); err == nil && res.StatusCode == 200 {
		t.Error("plain HTTP is accepted")
	}
}

// A new token and a new certificate count without a restart; a spoilt token file
// lets nobody in, a spoilt certificate leaves the one before.
func TestRemoteScrapeFollowsItsFiles(t *testing.T) {
	dir := t.TempDir()
	cert, key := certificate(t, dir, 1)
	token := filepath.Join(dir, "token")
	write(t, token, "one")
	address := served(t, MetricsConfig{TLSCert: cert, TLSKey: key, BearerFile: token})
	status := func(authorization string) (int, int64) {
		t.Helper()
		res, err := ask(t, "GET", "https://"+address+"/metrics", authorization, &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, res.TLS.PeerCertificates[0].SerialNumber.Int64()
	}
	if code, serial := status("Bearer one"); code != 200 || serial != 1 {
		t.Fatalf("at first: %d, certificate %d", code, serial)
	}
	certificate(t, dir, 2)
	write(t, token, "two")
	if code, _ := status("Bearer one"); code != 401 {
		t.Errorf("the old token: %d", code)
	}
	if code, serial := status("Bearer two"); code != 200 || serial != 2 {
		t.Errorf("the new token: %d, certificate %d", code, serial)
	}
	write(t, cert, "spoilt")
	write(t, token, " \n")
	for _, authorization := range []string{"", "Bearer", "Bearer ", "Bearer two"} {
		if code, serial := status(authorization); code != 401 || serial != 2 {
			t.Errorf("without a token in the file, %q: %d, certificate %d", authorization, code, serial)
		}
	}
}

func TestRemoteScrapeWithoutTLSAndToken(t *testing.T) {
	address := served(t, MetricsConfig{})
	if res, err := ask(t, "GET", "http://"+address+"/metrics", "", nil); err != nil || res.StatusCode != 200 {
		t.Errorf("%v %v", res, err)
	}
	if res, err := ask(t, "GET", "http://"+address+"/version", "", nil); err != nil || res.StatusCode != 404 {
		t.Errorf("%v %v", res, err)
	}
}

// What a scrape needs and isn't there ends the start, not the first scrape.
func TestRemoteScrapeNeedsItsFiles(t *testing.T) {
	dir := t.TempDir()
	cert, key := certificate(t, dir, 1)
	empty := filepath.Join(dir, "empty")
	write(t, empty, "\n")
	for name, c := range map[string]MetricsConfig{
		"tls_cert":    {TLSCert: filepath.Join(dir, "none"), TLSKey: key},
		"tls_key":     {TLSCert: cert, TLSKey: empty},
		"no token":    {BearerFile: empty},
		"bearer_file": {BearerFile: filepath.Join(dir, "none")},
	} {
		c.Listen = "127.0.0.1:0"
		if l, err := listenMetrics(c, slog.New(slog.DiscardHandler)); err == nil {
			l.Close()
			t.Errorf("%s: accepted", name)
		} else if want := strings.Fields(name)[0]; want != "no" && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if l, err := listenMetrics(MetricsConfig{}, nil); l != nil || err != nil {
		t.Errorf("off by default: %v %v", l, err)
	}
}
