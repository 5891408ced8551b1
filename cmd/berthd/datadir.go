package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// lockDataDir makes the data directory (0700) and takes its lock, so that two
// daemons never write one Raft log. The lock goes with the process.
func lockDataDir(dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	path := filepath.Join(dir, "lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600) // #nosec G304 -- below the operator's data_dir
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		holder, _ := os.ReadFile(path) // #nosec G304 -- as above
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("data directory %s is in use by another berthd (pid %s): stop that one, or give this one its own --data-dir",
				dir, strings.TrimSpace(string(holder)))
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	if err := writePid(f); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { _ = f.Close() }, nil
}

func writePid(f *os.File) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err := f.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0)
	return err
}

// containerdChoice is which containerd this data directory lives with, and where
// the cgroups of its containers are. It is made once and never changed:
// containers can't move.
type containerdChoice struct {
	Address      string `json:"address"`
	Own          bool   `json:"own"` // started by berthd, below its data directory
	CgroupParent string `json:"cgroup_parent"`
}

// agrees refuses settings that contradict the choice.
func (c *containerdChoice) agrees(config Config) error {
	want, fallback := config.Containerd, defaultConfig().Containerd
	if want.Address != "" && want.Address != c.Address {
		return fmt.Errorf("containerd.address is %s, but the containers of %s are in the containerd at %s: containers can't move; "+
			"remove the setting, or use a new data directory", want.Address, config.DataDir, c.Address)
	}
	if want.CgroupParent != fallback.CgroupParent && want.CgroupParent != c.CgroupParent {
		return fmt.Errorf("containerd.cgroup_parent is %s, but the containers of %s are in %s: "+
			"remove the setting, or use a new data directory", want.CgroupParent, config.DataDir, c.CgroupParent)
	}
	return nil
}

func choicePath(dir string) string { return filepath.Join(dir, "containerd.json") }

func readChoice(dir string) (*containerdChoice, error) {
	raw, err := os.ReadFile(choicePath(dir)) // #nosec G304 -- below data_dir
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("containerd's address: %w", err)
	}
	c := &containerdChoice{}
	if err := json.Unmarshal(raw, c); err != nil {
		return nil, fmt.Errorf("containerd's address: %s: %w", choicePath(dir), err)
	}
	return c, nil
}

func writeChoice(dir string, c *containerdChoice) error {
	raw, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("containerd's address: %w", err)
	}
	temp := choicePath(dir) + ".new"
	if err := os.WriteFile(temp, append(raw, '\n'), 0o600); err != nil {
		return fmt.Errorf("containerd's address: %w", err)
	}
	if err := os.Rename(temp, choicePath(dir)); err != nil {
		return fmt.Errorf("containerd's address: %w", err)
	}
	return nil
}
