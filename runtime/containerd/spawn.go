package containerd

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"text/template"
	"time"

	"golang.org/x/sys/unix"
)

// SpawnConfig says where a containerd of berth's own keeps everything.
type SpawnConfig struct {
	Dir    string // holds its data, state, socket, configuration, log and pid
	Binary string // empty: "containerd" on the path
	Log    *slog.Logger
}

// Names below SpawnConfig.Dir.
const (
	socketName = "containerd.sock"
	configName = "config.toml"
	pidName    = "containerd.pid"
	logName    = "containerd.log"
)

// socketPathMax is what the kernel takes for a unix socket, less the suffix
// containerd adds for its second one (".ttrpc").
const socketPathMax = 107 - len(".ttrpc")

// servingTimeout bounds how long a new containerd may take until it serves.
const servingTimeout = 30 * time.Second

//go:embed containerd.toml.tmpl
var configText string

var configTemplate = template.Must(template.New("containerd.toml").Parse(configText))

// Spawn gives the address of the containerd that lives in the directory, and
// starts it if it isn't there. It runs in a session of its own and outlives this
// process; Stop ends it, Clear ends its containers too.
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
	if serving(ctx, address, time.Second) == nil {
		return address, nil
	}
	binary := cfg.Binary
	if binary == "" {
		binary = "containerd"
	}
	if binary, err = exec.LookPath(binary); err != nil {
		return "", fmt.Errorf("no containerd on this host; install the package containerd: %w", err)
	}
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return "", err
	}
	if err := writeConfig(dir); err != nil {
		return "", fmt.Errorf("write containerd's configuration: %w", err)
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
	if err := serving(ctx, address, servingTimeout); err != nil {
		return "", fmt.Errorf("%s doesn't serve: %w; its last words: %s",
			binary, cmp.Or(context.Cause(ctx), err), lastLines(filepath.Join(dir, logName)))
	}
	cfg.Log.Info("started a containerd of our own", "binary", binary, "address", address)
	return address, nil
}

func writeConfig(dir string) error {
	var text strings.Builder
	if err := configTemplate.Execute(&text, map[string]string{"Dir": dir}); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, configName), []byte(text.String()), 0o600)
}

// start runs containerd detached.
func start(binary, dir string) (*exec.Cmd, error) {
	log, err := os.OpenFile(filepath.Join(dir, logName), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o640)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(binary, "--config", filepath.Join(dir, configName))
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	pid := strconv.Itoa(cmd.Process.Pid)
	if err := os.WriteFile(filepath.Join(dir, pidName), []byte(pid), 0o600); err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return nil, err
	}
	return cmd, nil
}

// serving waits until a containerd answers at the address.
func serving(ctx context.Context, address string, timeout time.Duration) error {
	if _, err := os.Stat(address); err != nil && timeout <= time.Second {
		return err
	}
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
