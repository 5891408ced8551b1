package api

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"slices"

	"github.com/danielgtaylor/huma/v2"

	"berth/workspace"
)

// Days is a range of UTC days and the workspace that a question is about.
type Days struct {
	Scope
	Since string `query:"since" doc:"a UTC date such as 2026-01-31"`
	Until string `query:"until" doc:"a UTC date, that day too"`
}

type usageInput struct {
	Days
	Reading
	By []string `query:"by" enum:"workspace,user,project,day,gpu_type" doc:"one sum for each; absent: one in all"`
}

type ledgerInput struct {
	Days
	Raw
}

func (a *API) registerUsage(h huma.API) {
	route(h, http.MethodGet, "/workspaces/{id}/usage", "get-workspace-usage", "What a workspace has used of each of its limits", a.workspaceUsage)
	route(h, http.MethodGet, "/usage", "get-usage", "Sums over the ledger, of one workspace or of all", a.usage)
	route(h, http.MethodGet, "/ledger", "export-ledger", "What each run has cost on each day, a line of JSON each; rows that aren't final still rise", a.ledger, ledgerBody(h))
}

func ledgerBody(h huma.API) func(*huma.Operation) {
	row := h.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[workspace.LedgerEntry](), true, "LedgerEntry")
	return sends(ndjson, &huma.MediaType{Schema: row})
}

func (a *API) workspaceUsage(ctx context.Context, in *workspaceInput) (*object[workspace.WorkspaceUsage], error) {
	r, err := a.reader(ctx, in.Reading)
	if err != nil {
		return nil, err
	}
	w, err := r.workspace(in.ID)
	if err != nil {
		return nil, err
	}
	return &object[workspace.WorkspaceUsage]{Meta: r.meta(), Body: r.WorkspaceUsage(w.ID, a.now())}, nil
}

func (a *API) usage(ctx context.Context, in *usageInput) (*object[workspace.UsageReport], error) {
	r, err := a.reader(ctx, in.Reading)
	if err != nil {
		return nil, err
	}
	q, err := r.usageQuery(&in.Days)
	if err != nil {
		return nil, err
	}
	report := &workspace.UsageReport{By: []string{}, Items: []workspace.UsageRow{}}
	for _, by := range in.By {
		if slices.Contains(report.By, by) {
			return nil, workspace.InvalidField("by", "%s is named twice", by)
		}
		report.By = append(report.By, by)
	}
	if total := r.Usage(q); len(total) > 0 {
		report.Total = total[0]
	}
	q.By = report.By
	report.Items = append(report.Items, r.Usage(q)...)
	if q.Since != 0 {
		report.Since = &q.Since
	}
	if q.Until != 0 {
		report.Until = &q.Until
	}
	return &object[workspace.UsageReport]{Meta: r.meta(), Body: report}, nil
}

// usageQuery is what a request asks of the ledger. Cluster admins who name no
// workspace get all; others see only what is theirs.
func (r *reader) usageQuery(in *Days) (q workspace.UsageQuery, err error) {
	if q.Since, err = dayOf("since", in.Since); err != nil {
		return q, err
	}
	if q.Until, err = dayOf("until", in.Until); err != nil {
		return q, err
	}
	if q.Since != 0 && q.Until != 0 && q.Until < q.Since {
		return q, workspace.InvalidField("until", "%s is before since, %s", q.Until, q.Since)
	}
	ref := in.ref()
	if r.admin() && (ref == "" || ref == "*") {
		return q, nil
	}
	if w := cmp.Or(r.Workspace(ref), r.WorkspaceBySlug(ref)); w != nil && r.admin() {
		q.Workspace = w.ID // also one that is deleted: its ledger stays
		return q, nil
	}
	w, err := r.workspace(ref)
	if err != nil {
		return q, err
	}
	q.Workspace = w.ID
	return q, nil
}

func dayOf(field, text string) (workspace.Day, error) {
	if text == "" {
		return 0, nil
	}
	return workspace.ParseDay(field, text)
}

// ledger writes one moment's rows, however long that takes. Lines are sent in
// blocks: each on its own would be a packet.
func (a *API) ledger(ctx context.Context, in *ledgerInput) (*huma.StreamResponse, error) {
	r, err := a.reader(ctx, Reading{})
	if err != nil {
		return nil, err
	}
	q, err := r.usageQuery(&in.Days)
	if err != nil {
		return nil, err
	}
	d := newDownload(in.w, ndjson)
	return a.run(ctx, d, false, func(ctx context.Context) error {
		out := bufio.NewWriterSize(d, 64<<10)
		rows := json.NewEncoder(out)
		for e := range r.Ledger(q.Workspace, q.Since, q.Until) {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err := rows.Encode(e); err != nil {
				return fmt.Errorf("send the ledger: %w", err)
			}
		}
		return out.Flush()
	})
}
