package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"berth/metrics"
	"berth/state"
	"berth/workspace"
)

const (
	// foldedMost bounds one entry of history.
	foldedMost = 500
	// exportAgain is how soon an export is tried again that has failed.
	exportAgain = 10 * time.Minute
)

// history is leader work: once a day it forgets the runs that ended before the time
// that is kept. What they have cost is written to a file first, if one is set; as
// long as that fails, nothing is forgotten.
type history struct {
	keep   time.Duration
	export string // path of the file; empty: none
	log    *slog.Logger
	failed atomic.Pointer[error] // of the last export of this term; nil: it didn't fail
}

func newHistory(c HistoryConfig, log *slog.Logger) *history {
	return &history{keep: time.Duration(c.KeepDays) * 24 * time.Hour, export: c.Export, log: log}
}

// Run until ctx ends, which is with leadership and no error.
func (h *history) Run(ctx context.Context, view func() state.View, propose func(context.Context, state.Command) error, now func() time.Time) error {
	defer h.failed.Store(nil) // it is the next leader's
	for {
		left, err := h.RunOnce(ctx, view(), propose, now())
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		}
		pause := time.NewTimer(left)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return nil
		}
	}
}

// RunOnce exports and forgets what a view has that is too old at a time, and says
// how long it is until there may be more. The export is on the disk before the entry
// is proposed: a crash in between exports the rows once more.
func (h *history) RunOnce(ctx context.Context, view state.View, propose func(context.Context, state.Command) error, now time.Time) (left time.Duration, err error) {
	left = (workspace.DayOf(now) + 1).Start().Sub(now)
	runs, before := h.old(view, now)
	if len(runs) == 0 {
		h.failed.Store(nil)
		return left, nil
	}
	var rows []*workspace.LedgerEntry
	for _, run := range runs {
		rows = slices.AppendSeq(rows, view.RunLedger(run))
	}
	if err := h.write(rows); err != nil {
		h.failed.Store(&err)
		h.log.Error("ended runs can't be exported; none is forgotten until they can", "path", h.export, "runs", len(runs), "err", err)
		return exportAgain, nil
	}
	h.failed.Store(nil)
	if err := propose(ctx, &state.FoldHistory{Before: before.UnixMicro(), Runs: runs}); err != nil {
		return 0, fmt.Errorf("forget runs that ended before %s: %w", before.Format(time.RFC3339), err)
	}
	h.log.Info("ended runs forgotten", "runs", len(runs), "rows", len(rows), "before", before)
	if len(runs) == foldedMost {
		left = 0
	}
	return left, nil
}

// old are the runs of one entry, and the time before which they ended. It is by the
// log's clock where that is behind: what Apply would refuse isn't exported.
func (h *history) old(view state.View, now time.Time) (runs []string, before time.Time) {
	if at := view.At(); at.Before(now) {
		now = at
	}
	before = now.Add(-h.keep).Truncate(time.Microsecond)
	for r := range view.Foldable(before) {
		if runs = append(runs, r.ID); len(runs) == foldedMost {
			break
		}
	}
	return runs, before
}

// warnings are for the status of the leader.
func (h *history) warnings() []string {
	if failed := h.failed.Load(); failed != nil {
		return []string{fmt.Sprintf("ended runs can't be exported, so that none is forgotten: %v", *failed)}
	}
	return nil
}

func (h *history) metrics() metrics.History {
	return metrics.History{Keep: h.keep, Failed: h.failed.Load() != nil}
}

// write adds rows to the export, as lines of JSON.
func (h *history) write(rows []*workspace.LedgerEntry) error {
	if h.export == "" || len(rows) == 0 {
		return nil
	}
	var text bytes.Buffer
	lines := json.NewEncoder(&text)
	for _, row := range rows {
		if err := lines.Encode(row); err != nil {
			return fmt.Errorf("history.export: %w", err)
		}
	}
	if err := appendLines(h.export, text.Bytes()); err != nil {
		return fmt.Errorf("history.export: %w: its directory must exist and its disk have room", err)
	}
	return nil
}

// appendLines returns once the lines are on the disk. Where that fails the file is
// as long as it was. A line that a crash has left unfinished is ended, and stays.
func appendLines(path string, text []byte) (err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600) // #nosec G304 -- the operator names it
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	size, err := file.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	last := []byte{'\n'}
	if size > 0 {
		if _, err := file.ReadAt(last, size-1); err != nil {
			return err
		}
	}
	if last[0] != '\n' {
		text = slices.Insert(text, 0, '\n')
	}
	_, err = file.Write(text)
	if err == nil {
		err = file.Sync()
	}
	if err != nil {
		return errors.Join(err, file.Truncate(size))
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(path string) error {
	dir, err := os.Open(path) // #nosec G304 -- the operator names it
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
