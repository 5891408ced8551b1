package api

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"iter"

	"berth/workspace"
)

// Paging chooses a page of a list.
type Paging struct {
	Reading
	Limit  int    `query:"limit" minimum:"1" maximum:"500" default:"50"`
	Cursor string `query:"cursor" doc:"next_cursor of the page before"`
}

// page is one page of a list.
type page[T any] struct {
	Items      []*T   `json:"items"`
	NextCursor string `json:"next_cursor" doc:"empty on the last page"`
}

// pageAnswer is an answer with a page.
type pageAnswer[T any] struct {
	Meta
	Total int `header:"X-Total-Count" doc:"of the whole list"`
	Body  page[T]
}

// paged cuts a page out of rows, which come in the order of their keys. list
// names the list, so that its cursors fit no other.
func paged[T any](a *API, r *reader, list string, in *Paging, rows iter.Seq[*T], key func(*T) string) (*pageAnswer[T], error) {
	after, err := a.openCursor(list, in.Cursor)
	if err != nil {
		return nil, err
	}
	answer := &pageAnswer[T]{Meta: r.meta(), Body: page[T]{Items: []*T{}}}
	for row := range rows {
		answer.Total++
		k := key(row)
		switch n := len(answer.Body.Items); {
		case in.Cursor != "" && k <= after:
		case n < in.Limit:
			answer.Body.Items = append(answer.Body.Items, row)
		case answer.Body.NextCursor == "":
			answer.Body.NextCursor = a.sealCursor(list, key(answer.Body.Items[n-1]))
		}
	}
	return answer, nil
}

// where keeps the rows that fit.
func where[T any](rows iter.Seq[*T], fits func(*T) bool) iter.Seq[*T] {
	return func(yield func(*T) bool) {
		for row := range rows {
			if fits(row) && !yield(row) {
				return
			}
		}
	}
}

const cursorTag = 16 // bytes of the HMAC that a cursor carries

func (a *API) sealCursor(list, key string) string {
	return base64.RawURLEncoding.EncodeToString(append(a.cursorSum(list, key), key...))
}

func (a *API) openCursor(list, cursor string) (string, error) {
	if cursor == "" {
		return "", nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(cursor)
	if err != nil || len(raw) < cursorTag || !hmac.Equal(raw[:cursorTag], a.cursorSum(list, string(raw[cursorTag:]))) {
		return "", workspace.Errorf(workspace.CodeMalformed,
			"this cursor is not one that this server gave for this list since it started: list again without one")
	}
	return string(raw[cursorTag:]), nil
}

func (a *API) cursorSum(list, key string) []byte {
	h := hmac.New(sha256.New, a.cursorKey)
	_, _ = h.Write([]byte(list + "\x00" + key))
	return h.Sum(nil)[:cursorTag]
}

// listed answers a list whose rows a caller may see all of.
func listed[T any](ctx context.Context, a *API, list string, in *Paging, rows func(*reader) iter.Seq[*T], key func(*T) string) (*pageAnswer[T], error) {
	r, err := a.reader(ctx, in.Reading)
	if err != nil {
		return nil, err
	}
	return paged(a, r, list, in, rows(r), key)
}
