package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"berth/agent"
	"berth/runtime"
	"berth/runtime/containerd"
)

// clearCommand is for a host that berth leaves, and for demos.
func clearCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "clear", Short: "End every container of this data directory and undo its mounts and networks", Args: cobra.NoArgs,
		Long: `Ends every container that the berthd of this data directory has started, unmounts
its volumes, and takes its networks and rules away. A containerd and a guard that
it started itself are stopped. berthd must not run. The files stay, volumes among them: the
next start finds its state, and what should run is started anew.`,
	}
	load := configFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		config, err := load()
		if err != nil {
			return err
		}
		unlock, err := lockDataDir(config.DataDir)
		if err != nil {
			return fmt.Errorf("stop berthd first: %w", err)
		}
		defer unlock()
		return clearHost(cmd.Context(), config, newLog(config, cmd.ErrOrStderr()))
	}
	return cmd
}

// clearHost goes on after an error: what can be taken away is.
func clearHost(ctx context.Context, c Config, log *slog.Logger) error {
	errs := []error{clearContainers(ctx, c, log)}
	if errs[0] == nil { // else there may be something left for it to end
		errs = append(errs, clearGuard(ctx, c))
	}
	volumes, err := openVolumes(c, log)
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	errs = append(errs, unmountAll(ctx, volumes), volumes.Close())
	networks, err := openNetworks(ctx, c, log)
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	return errors.Join(append(errs, networks.Clear(ctx))...)
}

func unmountAll(ctx context.Context, volumes runtime.Volumes) error {
	list, err := volumes.List(ctx)
	errs := []error{err}
	for _, v := range list {
		errs = append(errs, volumes.Unmount(ctx, v.ID))
	}
	return errors.Join(errs...)
}

func clearContainers(ctx context.Context, c Config, log *slog.Logger) error {
	choice, err := readChoice(c.DataDir)
	if err != nil || choice == nil {
		return err
	}
	if choice.Own {
		return containerd.Clear(ctx, containerdDir(c), choice.CgroupParent)
	}
	cluster, err := clusterOf(c)
	if err != nil || cluster == "" {
		return err
	}
	host, err := openRuntime(ctx, c, log)
	if err != nil {
		return err
	}
	defer func() { _ = host.Close() }()
	list, err := host.List(ctx)
	errs := []error{err}
	for _, container := range list {
		if container.Labels[agent.ClusterLabel] == cluster { // another data directory may use the same containerd
			errs = append(errs, host.Kill(ctx, container.ID), host.Delete(ctx, container.ID))
		}
	}
	return errors.Join(errs...)
}

// clusterOf is the cluster that this host's agent has last worked for, by what it
// keeps; empty: none.
func clusterOf(c Config) (string, error) {
	text, err := os.ReadFile(filepath.Join(c.DataDir, "agent.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	var kept struct {
		Cluster string `json:"cluster"`
	}
	if err == nil {
		err = json.Unmarshal(text, &kept)
	}
	return kept.Cluster, err
}
