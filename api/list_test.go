package api

import (
	"encoding/base64"
	"fmt"
	"net/url"
	"testing"

	"github.com/google/go-cmp/cmp"

	"berth/workspace"
)

func TestPagesOf250(t *testing.T) {
	r := newRig(t)
	var want []string
	for i := range 250 {
		body := fmt.Sprintf(`{"name":"i%d","template":{"name":"demo"},"start":false}`, i)
		want = append(want, decode[workspace.Instance](t, r.ask("POST", "instances", body), 201).ID)
	}
	for _, limit := range []int{0, 1, 50, 125, 249, 250, 251, 500} {
		query := url.Values{}
		if limit > 0 {
			query.Set("limit", fmt.Sprint(limit))
		}
		var got []string
		for {
			a := r.ask("GET", "instances?"+query.Encode(), "")
			p := decode[page[workspace.Instance]](t, a, 200)
			if total := a.header.Get("X-Total-Count"); total != "250" {
				t.Fatalf("X-Total-Count %s", total)
			}
			for _, i := range p.Items {
				got = append(got, i.ID)
			}
			if full := max(limit, 1); limit != 0 && p.NextCursor != "" && len(p.Items) != full || limit == 0 && len(p.Items) != 50 {
				t.Fatalf("limit %d gave %d", limit, len(p.Items))
			}
			if p.NextCursor == "" {
				break
			}
			query.Set("cursor", p.NextCursor)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("limit %d: %s", limit, diff)
		}
	}
	for _, limit := range []string{"0", "501", "-1", "x"} {
		refused(t, r.ask("GET", "instances?limit="+limit, ""), 422, workspace.CodeInvalid, "query.limit")
	}
}

func TestCursorsAreOurs(t *testing.T) {
	r := newRig(t)
	r.instance("a")
	r.instance("b")
	cursor := decode[page[workspace.Instance]](t, r.ask("GET", "instances?limit=1", ""), 200).NextCursor
	raw, err := base64.RawURLEncoding.DecodeString(cursor)
	if err != nil {
		t.Fatal(err)
	}
	raw[len(raw)-1] ^= 1
	for name, bad := range map[string]string{
		"changed": base64.RawURLEncoding.EncodeToString(raw), "garbage": "!!", "short": "AAAA",
		"made up": base64.RawURLEncoding.EncodeToString([]byte("0123456789abcdef0198")),
	} {
		t.Run(name, func(t *testing.T) {
			refused(t, r.ask("GET", "instances?cursor="+bad, ""), 400, workspace.CodeMalformed, "list again")
		})
	}
	refused(t, r.ask("GET", "runs?cursor="+cursor, ""), 400, workspace.CodeMalformed, "for this list")
	// A row that goes meanwhile moves nothing.
	r.ask("DELETE", "instances/a", "")
	if p := decode[page[workspace.Instance]](t, r.ask("GET", "instances?cursor="+cursor, ""), 200); len(p.Items) != 1 || p.Items[0].Name != "b" {
		t.Errorf("after a: %+v", p)
	}
}

func TestEmptyListsAreArrays(t *testing.T) {
	r := newRig(t)
	for _, path := range []string{"instances", "runs", "devices?state=stuck", "images?cursor="} {
		a := r.ask("GET", path, "")
		if p := decode[page[struct{}]](t, r.ask("GET", "runs", ""), 200); p.Items == nil {
			t.Errorf("%s: %s", path, a.body)
		}
	}
}
