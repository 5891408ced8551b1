package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"regexp"
	"sync"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

// session is one channel of a client, with at most one process.
type session struct {
	server  *sshServer
	client  *ssh.ServerConn
	channel ssh.Channel

	terminal string // TERM; empty: none asked for
	size     windowSize
	env      []string

	mu      sync.Mutex
	started bool
	process *sessionProcess // nil: none, or sftp
}

// Bounds on what a client may set, and what a name may be.
const (
	envMost     = 256
	envMostSize = 64 << 10
)

var envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

func (s *sshServer) session(ctx context.Context, client *ssh.ServerConn, offer ssh.NewChannel) {
	channel, requests, err := offer.Accept()
	if err != nil {
		return
	}
	x := &session{server: s, client: client, channel: channel}
	defer func() { _ = channel.Close() }()
	defer context.AfterFunc(ctx, x.hangUp)()
	defer x.hangUp()
	for request := range requests {
		ok := x.handle(request)
		if request.WantReply {
			_ = request.Reply(ok, nil)
		}
		if ok {
			x.begin(request.Type)
		}
	}
}

// handle carries out one request but for what follows the reply.
func (x *session) handle(request *ssh.Request) bool {
	switch request.Type {
	case "env":
		var variable struct{ Name, Value string }
		if ssh.Unmarshal(request.Payload, &variable) != nil || !envName.MatchString(variable.Name) ||
			len(x.env) == envMost || len(variable.Value) > envMostSize {
			return false
		}
		x.env = append(x.env, variable.Name+"="+variable.Value)
		return true
	case "pty-req":
		var asked struct {
			Term                         string
			Columns, Rows, Width, Height uint32
			Modes                        string
		}
		if ssh.Unmarshal(request.Payload, &asked) != nil || x.started {
			return false
		}
		x.terminal = cmp.Or(asked.Term, "dumb")
		x.size = windowSize{asked.Columns, asked.Rows, asked.Width, asked.Height}
		return true
	case "window-change":
		var size windowSize
		return ssh.Unmarshal(request.Payload, &size) == nil && x.resize(size)
	case "signal":
		var asked struct{ Name string }
		return ssh.Unmarshal(request.Payload, &asked) == nil && x.signal(asked.Name)
	case "shell":
		return x.start("")
	case "exec":
		var asked struct{ Command string }
		return ssh.Unmarshal(request.Payload, &asked) == nil && asked.Command != "" && x.start(asked.Command)
	case "subsystem":
		var asked struct{ Name string }
		if ssh.Unmarshal(request.Payload, &asked) != nil || asked.Name != "sftp" || x.started {
			return false
		}
		x.started = true
		return true
	}
	return false
}

func (x *session) start(command string) bool {
	if x.started {
		return false
	}
	process, err := x.startProcess(command)
	if err != nil {
		fmt.Fprintf(x.channel.Stderr(), "berth: %v\n", err)
		return false
	}
	x.mu.Lock()
	x.process = process
	x.mu.Unlock()
	x.started = true
	return true
}

// begin serves what was started, once the client has been told that it was.
func (x *session) begin(request string) {
	switch request {
	case "shell", "exec":
		go x.process.serve(x.channel)
	case "subsystem":
		go x.serveSFTP()
	}
}

func (x *session) serveSFTP() {
	defer func() { _ = x.channel.Close() }()
	server, err := sftp.NewServer(x.channel, sftp.WithServerWorkingDirectory(x.server.account.home))
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	status := uint32(0)
	if err := server.Serve(); err != nil {
		status = 1
	}
	_, _ = x.channel.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{status}))
}

func (x *session) resize(size windowSize) bool {
	x.size = size
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.process == nil || x.process.master == nil || size.apply(x.process.master) == nil
}

// signals are those of RFC 4254 section 6.10.
var signals = map[string]unix.Signal{
	"ABRT": unix.SIGABRT, "ALRM": unix.SIGALRM, "FPE": unix.SIGFPE, "HUP": unix.SIGHUP, "ILL": unix.SIGILL,
	"INT": unix.SIGINT, "KILL": unix.SIGKILL, "PIPE": unix.SIGPIPE, "QUIT": unix.SIGQUIT, "SEGV": unix.SIGSEGV,
	"TERM": unix.SIGTERM, "USR1": unix.SIGUSR1, "USR2": unix.SIGUSR2,
}

func (x *session) signal(name string) bool {
	number, ok := signals[name]
	x.mu.Lock()
	defer x.mu.Unlock()
	if !ok || x.process == nil {
		return false
	}
	return x.process.cmd.Process.Signal(number) == nil
}

// hangUp ends what is left of the session as a terminal's line that drops does:
// what ignores it, under nohup for example, goes on.
func (x *session) hangUp() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.process != nil {
		x.process.hangUp()
	}
}

// environment is the account's, with the connection's, under the client's own.
func (x *session) environment() []string {
	env := x.server.account.environment()
	host, port := splitAddr(x.client.RemoteAddr())
	ownHost, ownPort := splitAddr(x.client.LocalAddr())
	env = append(env, "SSH_CONNECTION="+host+" "+port+" "+ownHost+" "+ownPort)
	if x.terminal != "" {
		env = append(env, "TERM="+x.terminal)
	}
	return append(env, x.env...)
}

func (a account) directory() string {
	if info, err := os.Stat(a.home); err == nil && info.IsDir() {
		return a.home
	}
	return "/"
}
