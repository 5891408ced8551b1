package main

import (
	"bufio"
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"berth/client"
	"berth/workspace"
)

func (a *app) ledgerCommand() *cobra.Command {
	return noun("ledger", "What each run has cost on each day", nil, a.ledgerExport())
}

func (a *app) ledgerExport() *cobra.Command {
	var days daysFlags
	var file string
	c := &cobra.Command{
		Use:   "export",
		Short: "Write the ledger's rows, one for each run and UTC day",
		Long: `Writes the ledger as it is at one moment, of all workspaces or of the one that
--workspace names: a line of JSON for each row, or with -o csv a table. Amounts are in
millionths of a USD. Rows that aren't final belong to runs that still live, and rise.
The sum is told at the end, on standard error when the rows go to standard output.

--file writes a file whole or not at all: an export that breaks off leaves the file
that was there.`,
		Example: `  berth ledger export --since 2026-01-01 --until 2026-01-31 -o csv --file january.csv
  berth ledger export --workspace vision | jq .amount_micro_usd`,
		Annotations:       map[string]string{ownOutputs: "json csv"},
		Args:              takes(),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: a.with(func(c *cobra.Command, cl *client.Client, _ []string) error {
			e := &export{csv: a.output == "csv", headers: !a.noHeaders, progress: newProgress(a.stderr)}
			q := days.query(time.Now())
			if file == "" {
				if err := e.write(c.Context(), cl, q, a.stdout); err != nil {
					return err
				}
				fmt.Fprintln(a.stderr, e.sum())
				return nil
			}
			err := writeWhole(file, func(w io.Writer) error { return e.write(c.Context(), cl, q, w) })
			if err != nil {
				return err
			}
			a.say("%s: %s", file, e.sum())
			return nil
		}),
	}
	days.addTo(c)
	c.Flags().StringVar(&file, "file", "", "write to this file; it is replaced once all is written")
	return c
}

// export writes rows and sums them up.
type export struct {
	csv, headers bool
	progress     *progress

	rows, rising int
	amount       int64
}

func (e *export) sum() string {
	noun := "rows"
	if e.rows == 1 {
		noun = "row"
	}
	text := fmt.Sprintf("%d %s, %s", e.rows, noun, workspace.FormatUSD(e.amount))
	if e.rising > 0 {
		text += fmt.Sprintf("; %d of them still rise", e.rising)
	}
	return text
}

// progressRows is how often the progress is told.
const progressRows = 1000

func (e *export) write(ctx context.Context, cl *client.Client, q client.UsageQuery, to io.Writer) error {
	defer e.progress.done()
	out := bufio.NewWriter(to)
	row := e.jsonRows(out)
	if e.csv {
		row = e.csvRows(out)
	}
	for entry, err := range cl.Ledger(ctx, q) {
		if err == nil {
			err = row(&entry)
		}
		if err != nil {
			return err
		}
		e.rows++
		e.amount += entry.Amount
		if !entry.Final {
			e.rising++
		}
		if e.progress.live && e.rows%progressRows == 0 {
			e.progress.show(e.sum())
		}
	}
	if err := row(nil); err != nil {
		return err
	}
	return out.Flush()
}

// jsonRows and csvRows give what writes a row, and ends the rows after nil.
func (e *export) jsonRows(w io.Writer) func(*workspace.LedgerEntry) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return func(l *workspace.LedgerEntry) error {
		if l == nil {
			return nil
		}
		return enc.Encode(l)
	}
}

func (e *export) csvRows(w io.Writer) func(*workspace.LedgerEntry) error {
	out := csv.NewWriter(w)
	if e.headers {
		_ = out.Write([]string{"run", "instance", "workspace", "user", "project", "kind", "gpu_type", "day", "generation",
			"rate_micro_usd_per_hour", "amount_micro_usd", "charged_ms", "charged_through_ms", "final"}) // Error tells
	}
	return func(l *workspace.LedgerEntry) error {
		if l == nil {
			out.Flush()
			return out.Error()
		}
		return out.Write([]string{l.Run, l.Instance, l.Workspace, l.User, l.Project, string(l.Kind), l.GPUType, l.Day.String(),
			strconv.FormatUint(l.Generation, 10), strconv.FormatInt(l.Rate, 10), strconv.FormatInt(l.Amount, 10),
			strconv.FormatInt(l.MS, 10), strconv.FormatInt(l.ChargedThrough, 10), strconv.FormatBool(l.Final)})
	}
}

// writeWhole writes a file by rename: whatever goes wrong, the old one stays.
func writeWhole(file string, write func(io.Writer) error) (err error) {
	tmp, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+".*")
	if err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	defer func() {
		if err != nil {
			_ = tmp.Close()
			_ = os.Remove(tmp.Name())
		}
	}()
	if err := write(tmp); err != nil {
		return err
	}
	if err := tmp.Sync(); err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	if err := tmp.Close(); err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	if err := os.Rename(tmp.Name(), file); err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	return nil
}
