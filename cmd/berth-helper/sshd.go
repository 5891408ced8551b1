package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

const (
	keyVariable = "BERTH_SSH_KEY"

	// A client has this long to log in, and so many may be about to at once.
	loginTime  = 30 * time.Second
	loginsMost = 32
)

// runSSHD serves SSH until TERM or INT. Everybody who logs in is the user that it
// runs as, whatever name they give.
func runSSHD(port, dir string) int {
	// It idles most of the time, beside work that needs the memory.
	debug.SetGCPercent(20)
	if number, err := strconv.Atoi(port); err != nil || number < 0 || number > 65535 {
		fmt.Fprintf(os.Stderr, "berth-helper sshd: %q is not a port\n", port)
		return 2
	}
	server, err := newSSHServer(os.Getenv(keyVariable), dir)
	if err != nil {
		complain(err)
		return 1
	}
	listener, err := net.Listen("tcp", net.JoinHostPort("", port))
	if err != nil {
		complain(err)
		return 1
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	fmt.Fprintf(os.Stderr, "berth: SSH server listens on %s, its host key is %s\n", listener.Addr(), server.fingerprint)
	server.serve(ctx, listener)
	return 0
}

// sshServer answers SSH connections.
type sshServer struct {
	config      *ssh.ServerConfig
	fingerprint string
	account     account
	logins      chan struct{} // of those who are about to log in
}

func newSSHServer(keys, dir string) (*sshServer, error) {
	allowed, err := parseKeys(keys)
	if err != nil {
		return nil, err
	}
	host, err := hostKey(dir)
	if err != nil {
		return nil, err
	}
	config := &ssh.ServerConfig{
		ServerVersion: "SSH-2.0-berth",
		PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
			for _, known := range allowed {
				if bytes.Equal(known.Marshal(), key.Marshal()) {
					return &ssh.Permissions{}, nil
				}
			}
			return nil, errors.New("unknown key")
		},
	}
	config.AddHostKey(host)
	return &sshServer{
		config:      config,
		fingerprint: ssh.FingerprintSHA256(host.PublicKey()),
		account:     currentAccount(),
		logins:      make(chan struct{}, loginsMost),
	}, nil
}

// parseKeys reads lines as of authorized_keys. Options before a key restrict what
// it may do; that can't be kept, so such a line is refused.
func parseKeys(text string) ([]ssh.PublicKey, error) {
	var keys []ssh.PublicKey
	for rest := bytes.TrimSpace([]byte(text)); len(rest) > 0; {
		key, _, options, after, err := ssh.ParseAuthorizedKey(rest)
		if err != nil {
			return nil, fmt.Errorf("%s: its line %d isn't a public key: %w", keyVariable, len(keys)+1, err)
		}
		if len(options) > 0 {
			return nil, fmt.Errorf("%s: options such as %s are not supported", keyVariable, options[0])
		}
		keys, rest = append(keys, key), bytes.TrimSpace(after)
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("%s has no public key: nobody could log in", keyVariable)
	}
	return keys, nil
}

// serve ends when ctx does; sessions end with it.
func (s *sshServer) serve(ctx context.Context, listener net.Listener) {
	defer context.AfterFunc(ctx, func() { listener.Close() })()
	var connections sync.WaitGroup
	defer connections.Wait()
	for {
		conn, err := listener.Accept()
		if ctx.Err() != nil {
			return
		}
		if err != nil { // such as too many open files
			time.Sleep(50 * time.Millisecond)
			continue
		}
		select {
		case s.logins <- struct{}{}:
			connections.Go(func() { s.connection(ctx, conn) })
		default:
			conn.Close()
		}
	}
}

// connection lets one client in and serves it until it goes.
func (s *sshServer) connection(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	context.AfterFunc(ctx, func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(loginTime))
	client, channels, requests, err := ssh.NewServerConn(conn, s.config)
	<-s.logins
	if err != nil {
		return
	}
	_ = conn.SetDeadline(time.Time{})
	go ssh.DiscardRequests(requests)
	var serving sync.WaitGroup
	defer serving.Wait()
	defer cancel() // before the wait: all that is served ends with the connection
	for offer := range channels {
		switch offer.ChannelType() {
		case "session":
			serving.Go(func() { s.session(ctx, client, offer) })
		case "direct-tcpip":
			serving.Go(func() { forward(ctx, offer) })
		default:
			_ = offer.Reject(ssh.UnknownChannelType, "only sessions and forwarding to this container's loopback")
		}
	}
}
