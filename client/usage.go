package client

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strings"

	"berth/workspace"
)

// WorkspaceUsage is what a workspace has used of each of its limits.
func (c *Client) WorkspaceUsage(ctx context.Context, ref string) (*workspace.WorkspaceUsage, error) {
	return one[workspace.WorkspaceUsage](ctx, c, request{method: http.MethodGet, path: path("workspaces", ref, "usage")})
}

// UsageQuery asks for sums over the ledger. The zero value is one sum of all
// that the caller may see.
type UsageQuery struct {
	Workspace    string   // id or slug; empty: the client's, then all
	Since, Until string   // UTC dates such as 2026-01-31, both included; empty: no bound
	By           []string // of workspace.UsageDimensions
}

func (q UsageQuery) values() url.Values {
	v := url.Values{}
	for name, value := range map[string]string{
		"workspace": q.Workspace, "since": q.Since, "until": q.Until, "by": strings.Join(q.By, ","),
	} {
		if value != "" {
			v.Set(name, value)
		}
	}
	return v
}

// Usage sums the ledger.
func (c *Client) Usage(ctx context.Context, q UsageQuery) (*workspace.UsageReport, error) {
	return one[workspace.UsageReport](ctx, c, request{method: http.MethodGet, path: "/usage", query: q.values()})
}

// Ledger gives the rows of one moment as they come; By isn't asked for. It ends
// after the first error, and an answer that broke off ends in one.
func (c *Client) Ledger(ctx context.Context, q UsageQuery) iter.Seq2[workspace.LedgerEntry, error] {
	return func(yield func(workspace.LedgerEntry, error) bool) {
		q.By = nil
		res, err := c.open(ctx, request{method: http.MethodGet, path: "/ledger", query: q.values()})
		if err != nil {
			yield(workspace.LedgerEntry{}, err)
			return
		}
		defer res.Body.Close()
		for rows := json.NewDecoder(res.Body); ; {
			var e workspace.LedgerEntry
			switch err := rows.Decode(&e); {
			case errors.Is(err, io.EOF):
				if told := trailerError(res); told != nil {
					yield(workspace.LedgerEntry{}, told)
				}
				return
			case err != nil:
				yield(workspace.LedgerEntry{}, brokenOff(ctx, c, err))
				return
			}
			if !yield(e, nil) {
				return
			}
		}
	}
}
