package main

import (
	"context"
	"io"
	"net"
	"strconv"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// forwardTarget is RFC 4254 section 7.2.
type forwardTarget struct {
	Host       string
	Port       uint32
	OriginHost string
	OriginPort uint32
}

const dialTime = 10 * time.Second

// forward connects a client to a port of this container's loopback, and to
// nothing else: SSH is no way around the rules of its network.
func forward(ctx context.Context, offer ssh.NewChannel) {
	var target forwardTarget
	if err := ssh.Unmarshal(offer.ExtraData(), &target); err != nil || target.Port > 65535 {
		_ = offer.Reject(ssh.ConnectionFailed, "malformed request")
		return
	}
	if ip := net.ParseIP(target.Host); target.Host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		_ = offer.Reject(ssh.Prohibited, "only to localhost of this container")
		return
	}
	dialer := net.Dialer{Timeout: dialTime}
	server, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(target.Host, strconv.Itoa(int(target.Port))))
	if err != nil {
		_ = offer.Reject(ssh.ConnectionFailed, err.Error())
		return
	}
	defer server.Close()
	channel, requests, err := offer.Accept()
	if err != nil {
		return
	}
	defer func() { _ = channel.Close() }()
	go ssh.DiscardRequests(requests)
	defer context.AfterFunc(ctx, func() { server.Close() })()
	var copying sync.WaitGroup
	copying.Go(func() {
		_, _ = io.Copy(server, channel)
		_ = server.(*net.TCPConn).CloseWrite()
	})
	copying.Go(func() {
		_, _ = io.Copy(channel, server)
		_ = channel.CloseWrite()
	})
	copying.Wait()
}
