package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"berth/client"
	"berth/workspace"
)

func (a *app) cpCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "cp SOURCE DESTINATION",
		Short: "Copy files to and from an instance",
		Long: `Copies a file or a directory with all that is in it. One side is INSTANCE:PATH, an
absolute path in the container, the other a path of this machine; one that has a
colon before its first slash is written with ./ before it. A destination that is a
directory takes the source in under its own name; else it is the new name.

- instead of the path of this machine is a tar archive on standard output, or on
standard input, which is unpacked into the directory PATH. In the container files
belong to its user. Only files, directories and links are copied.`,
		Example: `  berth cp data.csv nb:/home/jovyan/
  berth cp nb:/home/jovyan/results results-today
  berth cp nb:/var/log - | tar tv`,
		Args: takes("SOURCE", "DESTINATION"),
		ValidArgsFunction: func(c *cobra.Command, _ []string, start string) ([]cobra.Completion, cobra.ShellCompDirective) {
			names, _ := a.complete(instanceNames)(c, nil, start)
			return each(names, func(n string) string { return n + ":/" }), cobra.ShellCompDirectiveNoSpace
		},
		RunE: a.with(func(c *cobra.Command, cl *client.Client, args []string) error {
			from, to, err := parsePlaces(args[0], args[1])
			if err != nil {
				return err
			}
			if from.instance != "" {
				return a.download(c.Context(), cl, from, to.path)
			}
			return a.upload(c.Context(), cl, from.path, to)
		}),
	}
}

// place is one side of a copy.
type place struct {
	instance string // empty: this machine
	path     string
}

func parsePlaces(source, destination string) (from, to place, err error) {
	from, to = parsePlace(source), parsePlace(destination)
	if (from.instance == "") == (to.instance == "") {
		return from, to, usagef("one of %q and %q must be INSTANCE:PATH, and the other a path of this machine", source, destination)
	}
	for _, p := range []place{from, to} {
		if p.instance != "" && !path.IsAbs(p.path) {
			return from, to, usagef("%s:%s: the path in the container must be absolute, such as %s:/workspace/%s", p.instance, p.path, p.instance, p.path)
		}
	}
	return from, to, nil
}

func parsePlace(text string) place {
	instance, inside, ok := strings.Cut(text, ":")
	if !ok || instance == "" || strings.ContainsAny(instance, `/.\`) {
		return place{path: text}
	}
	return place{instance, inside}
}

// download copies out of a container.
func (a *app) download(ctx context.Context, cl *client.Client, from place, to string) error {
	if to == "-" {
		return cl.CopyFrom(ctx, from.instance, from.path, a.stdout)
	}
	dir, name, err := destination(to, path.Base(path.Clean(from.path)))
	if err != nil {
		return err
	}
	archive, sink := io.Pipe()
	fetched := make(chan error, 1)
	go func() {
		err := cl.CopyFrom(ctx, from.instance, from.path, sink)
		sink.CloseWithError(err)
		fetched <- err
	}()
	p := a.newTransfer()
	done, err := unpack(io.TeeReader(archive, p), dir, name)
	archive.CloseWithError(err)
	p.done()
	if failed := <-fetched; failed != nil && (err == nil || errors.Is(err, failed)) {
		err = failed
	}
	if err != nil {
		return err
	}
	for _, skipped := range done.skipped {
		fmt.Fprintf(a.stderr, "%s was left out: it is neither a file, a directory nor a link\n", printable(skipped))
	}
	return a.tellCopied(done.copied, filepath.Join(dir, name))
}

// destination says in which directory of this machine what is copied goes, and
// under which name.
func destination(to, base string) (dir, name string, err error) {
	info, err := os.Stat(to)
	switch {
	case err == nil && info.IsDir():
		if base == "/" { // all of a container's files
			return to, ".", nil
		}
		return to, base, nil
	case strings.HasSuffix(to, "/"), base == "/":
		return "", "", fmt.Errorf("%s is no directory", to)
	}
	dir, name = filepath.Split(filepath.Clean(to))
	if dir == "" {
		dir = "."
	}
	if _, err := os.Stat(dir); err != nil {
		return "", "", fmt.Errorf("copy to %s: %w", to, err)
	}
	return dir, name, nil
}

// upload copies into a container.
func (a *app) upload(ctx context.Context, cl *client.Client, from string, to place) error {
	if from == "-" {
		return cl.CopyTo(ctx, to.instance, path.Clean(to.path), a.stdin)
	}
	if _, err := os.Stat(from); err != nil {
		return fmt.Errorf("copy: %w", err)
	}
	full, err := filepath.Abs(from)
	if err != nil {
		return fmt.Errorf("copy: %w", err)
	}
	dir, name, err := a.remoteDestination(ctx, cl, to, filepath.Base(full))
	if err != nil {
		return err
	}
	archive, sink := io.Pipe()
	packed := make(chan error, 1)
	p := a.newTransfer()
	var done copied
	go func() {
		err := pack(io.MultiWriter(sink, p), full, name, &done)
		sink.CloseWithError(err)
		packed <- err
	}()
	err = cl.CopyTo(ctx, to.instance, dir, archive)
	archive.CloseWithError(io.ErrClosedPipe) // the packing ends, if it hasn't
	failed := <-packed
	p.done()
	if failed != nil && !errors.Is(failed, io.ErrClosedPipe) {
		err = failed // why the daemon got a broken archive
	}
	if err != nil {
		return err
	}
	return a.tellCopied(done, to.instance+":"+path.Join(dir, name))
}

// remoteDestination is destination in a container: an empty archive finds out
// whether there is a directory.
func (a *app) remoteDestination(ctx context.Context, cl *client.Client, to place, base string) (dir, name string, err error) {
	clean := path.Clean(to.path)
	err = cl.CopyTo(ctx, to.instance, clean, bytes.NewReader(make([]byte, 1024)))
	switch code := workspace.CodeOf(err); {
	case err == nil:
		return clean, base, nil
	case strings.HasSuffix(to.path, "/"), code == workspace.CodeDenied, code == workspace.CodeUnavailable:
		return "", "", err
	}
	if _, missing := cl.Instance(ctx, to.instance); missing != nil {
		return "", "", missing
	}
	return path.Dir(clean), path.Base(clean), nil
}

// copied counts what was copied.
type copied struct {
	files int
	bytes int64
}

func (a *app) tellCopied(c copied, where string) error {
	files := "files"
	if c.files == 1 {
		files = "file"
	}
	a.say("%d %s (%s) copied to %s", c.files, files, formatBytes(c.bytes), where)
	return nil
}

// transfer shows on a terminal how much has been copied.
type transfer struct {
	progress   *progress
	sent, next int64
}

func (a *app) newTransfer() *transfer { return &transfer{progress: newProgress(a.stderr)} }

func (t *transfer) Write(p []byte) (int, error) {
	t.sent += int64(len(p))
	if t.progress.live && t.sent >= t.next {
		t.next = t.sent + progressStep
		t.progress.show(formatBytes(t.sent) + " copied")
	}
	return len(p), nil
}

func (t *transfer) done() { t.progress.done() }
