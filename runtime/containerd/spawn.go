package containerd

import (
	"bytes"
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"text/template"
	"time"

	"golang.org/x/sys/unix"
)

// SpawnConfig says where a containerd of berth's own keeps everything.
type SpawnConfig struct {
	Dir      string        // holds its data, state, socket, configuration and log
	Binary   string        // empty: "containerd" on the path
	Unit     string        // systemd's unit that runs it; empty: it is started as a process of its own
	Patience time.Duration // how long one may take until it serves, or has ended; 0: 30 s
	Log      *slog.Logger
}

// Names below SpawnConfig.Dir.
const (
	socketName = "containerd.sock"
	configName = "config.toml"
	logName    = "containerd.log"
)

// socketPathMax is what the kernel takes for a unix socket, less the suffix
// containerd adds for its second one (".ttrpc").
const socketPathMax = 107 - len(".ttrpc")

const defaultPatience = 30 * time.Second

//go:embed containerd.toml.tmpl
var configText string

var configTemplate = template.Must(template.New("containerd.toml").Parse(configText))

// Spawn gives the address of the containerd that lives in the directory, and
// starts it if it isn't there. It runs in a session of its own and outlives this
// process; Stop ends it, Clear ends its containers too.
//
// It may be called again at any time to have one that serves: that costs a call
// when there is one. One that is starting or ending is waited for; one that does
// neither and doesn't answer is killed, which its containers don't notice. Calls
// for one directory must not overlap.
func Spawn(ctx context.Context, cfg SpawnConfig) (address string, err error) {
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return "", err
	}
	address = filepath.Join(dir, socketName)
	if len(address) > socketPathMax {
		return "", fmt.Errorf("containerd's socket would be %s, %d characters; the kernel allows %d: use a shorter data directory",
			address, len(address), socketPathMax)
	}
	patience := cmp.Or(cfg.Patience, defaultPatience)
	if answers(ctx, address) {
		return address, nil
	}
	if pid := ownPid(dir); pid > 0 {
		served, err := settle(ctx, pid, address, patience)
		if err != nil {
			return "", fmt.Errorf("containerd in %s doesn't answer and doesn't end: %w", dir, err)
		}
		if served {
			return address, nil
		}
		cfg.Log.Warn("a containerd of our own has ended, or was killed because it didn't answer; starting another one", "pid", pid, "patience", patience)
	}
	binary, err := exec.LookPath(cmp.Or(cfg.Binary, "containerd"))
	if err != nil {
		return "", fmt.Errorf("no containerd on this host; install the package containerd: %w", err)
	}
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return "", err
	}
	if err := writeConfig(dir); err != nil {
		return "", fmt.Errorf("write containerd's configuration: %w", err)
	}
	if cfg.Unit != "" {
		return address, startUnit(ctx, cfg, address, patience)
	}
	containerd, err := start(binary, dir)
	if err != nil {
		return "", fmt.Errorf("start %s: %w", binary, err)
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	go func() { // for as long as both live, so that it leaves no zombie
		_ = containerd.Wait()
		stop(errors.New("it ended"))
	}()
	if err := serving(ctx, address, patience); err != nil {
		return "", fmt.Errorf("%s doesn't serve: %w; its last words: %s",
			binary, cmp.Or(context.Cause(ctx), err), lastLines(filepath.Join(dir, logName)))
	}
	cfg.Log.Info("started a containerd of our own", "binary", binary, "address", address)
	return address, nil
}

// startUnit has systemd run it, now and at every boot, in a cgroup of its own.
func startUnit(ctx context.Context, cfg SpawnConfig, address string, patience time.Duration) error {
	out, err := exec.CommandContext(ctx, "systemctl", "enable", "--now", cfg.Unit).CombinedOutput()
	if err == nil {
		err = serving(ctx, address, patience)
	}
	if err != nil {
		return fmt.Errorf("%s doesn't serve: %w: %s; journalctl -u %s says why", cfg.Unit, err, bytes.TrimSpace(out), cfg.Unit)
	}
	cfg.Log.Info("started a containerd of our own", "unit", cfg.Unit, "address", address)
	return nil
}

// settle waits until a containerd that lives serves, or has ended. One that does
// neither in time is killed: two must never work on one directory.
func settle(ctx context.Context, pid int, address string, patience time.Duration) (served bool, err error) {
	waiting, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() {
		ended <- end(waiting, pid, 0)
		stop()
	}()
	served = serving(waiting, address, patience) == nil
	stop()
	if alive := <-ended; served || alive == nil {
		return served, nil
	}
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	return false, end(ctx, pid, unix.SIGKILL)
}

func writeConfig(dir string) error {
	var text strings.Builder
	if err := configTemplate.Execute(&text, map[string]string{"Dir": dir}); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, configName), []byte(text.String()), 0o600)
}

// start runs containerd detached. The log of the one before stays for another
// start, because it may say why that ended.
func start(binary, dir string) (*exec.Cmd, error) {
	name := filepath.Join(dir, logName)
	if err := os.Rename(name, name+".1"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	log, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY, 0o640)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(binary, "--config", filepath.Join(dir, configName))
	cmd.Dir = "/"
	cmd.Env = slices.DeleteFunc(os.Environ(), fromServiceManager)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	return cmd, cmd.Start()
}

// fromServiceManager: with these containerd would speak to systemd in this
// daemon's name, and take its sockets for its own.
func fromServiceManager(variable string) bool {
	return strings.HasPrefix(variable, "NOTIFY_SOCKET=") ||
		strings.HasPrefix(variable, "WATCHDOG_") || strings.HasPrefix(variable, "LISTEN_")
}

// answers says at once whether a containerd serves at the address. A socket that
// nobody listens on isn't waited for.
func answers(ctx context.Context, address string) bool {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", address)
	if err != nil {
		return false
	}
	_ = conn.Close()
	return serving(ctx, address, answerTimeout) == nil
}

// serving waits until a containerd answers at the address.
func serving(ctx context.Context, address string, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	c, err := connect(address)
	if err != nil {
		return err
	}
	defer c.Close()
	ok, err := c.IsServing(ctx)
	if err == nil && !ok {
		err = errors.New("it says that it isn't serving")
	}
	return err
}

func lastLines(file string) string {
	const enough = 2000
	content, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(content[max(0, len(content)-enough):]))
}
