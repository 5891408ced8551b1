package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"berth/state"
	"berth/workspace"
)

type listImagesInput struct {
	Paging
	Node string `query:"node" doc:"id or host name"`
}

type importInput struct {
	Node string `query:"node" doc:"id or host name; absent: the host that answers"`
	Name string `query:"name" doc:"reference to store it under; absent: what the archive says"`
	body *upload
	kind string
}

// Resolve takes the body as a stream: huma would read it into memory.
func (in *importInput) Resolve(ctx huma.Context) []error {
	r, w := humago.Unwrap(ctx)
	in.body = &upload{from: r.Body, control: http.NewResponseController(w)}
	in.kind = r.Header.Get("Content-Type")
	return nil
}

type importAnswer struct {
	Meta
	Body page[workspace.NodeImage]
}

type removeImageInput struct {
	Reference string `query:"reference" required:"true"`
	Node      string `query:"node" doc:"id or host name; absent: the host that answers"`
}

const importPath = "/images"

func (a *API) registerImages(h huma.API) {
	route(h, http.MethodGet, importPath, "list-images", "Images that the nodes have", a.listImages)
	route(h, http.MethodPost, importPath, "import-image", "Store an OCI archive's images on a node", a.importImage, created, archiveBody)
	route(h, http.MethodPost, importPath+"/pull", "pull-image", "Fetch an image from its registry to a node", a.pullImage, pullBody(h))
	route(h, http.MethodDelete, importPath, "remove-image", "Forget an image on a node", a.removeImage)
}

func archiveBody(op *huma.Operation) {
	op.RequestBody = &huma.RequestBody{Required: true, Description: "an OCI image layout as a tar archive, streamed",
		Content: map[string]*huma.MediaType{tarType: binaryBody(), "application/octet-stream": binaryBody()}}
}

const tarType = "application/x-tar"

func binaryBody() *huma.MediaType {
	return &huma.MediaType{Schema: &huma.Schema{Type: "string", Format: "binary"}}
}

func (a *API) listImages(ctx context.Context, in *listImagesInput) (*pageAnswer[workspace.ImageOnNode], error) {
	r, err := a.reader(ctx, in.Reading)
	if err != nil {
		return nil, err
	}
	only := in.Node
	if only != "" {
		n, err := r.node(only)
		if err != nil {
			return nil, err
		}
		only = n.ID
	}
	return paged(a, r, "images", &in.Paging, r.images(only), imageKey)
}

func imageKey(i *workspace.ImageOnNode) string { return i.Node + " " + i.Reference }

// images of one node or of all, in the order of their keys.
func (r *reader) images(only string) iter.Seq[*workspace.ImageOnNode] {
	return func(yield func(*workspace.ImageOnNode) bool) {
		for n := range r.Nodes() {
			if only != "" && n.ID != only {
				continue
			}
			rows := make([]*workspace.ImageOnNode, 0, len(n.Images))
			for _, i := range n.Images {
				rows = append(rows, &workspace.ImageOnNode{Node: n.ID, NodeName: n.Name, NodeImage: i})
			}
			slices.SortFunc(rows, func(x, y *workspace.ImageOnNode) int { return strings.Compare(imageKey(x), imageKey(y)) })
			for _, row := range rows {
				if !yield(row) {
					return
				}
			}
		}
	}
}

// agentOf gives the agent of the node that a request names.
func (a *API) agentOf(ctx context.Context, ref string) (*workspace.Node, workspace.NodeService, error) {
	r, err := a.reader(ctx, Reading{})
	if err != nil {
		return nil, nil, err
	}
	if !r.admin() {
		return nil, nil, workspace.Errorf(workspace.CodeDenied, "only a cluster admin may change a node's images; you are %s (%s)", r.who.User, r.who.Role)
	}
	if ref == "" {
		ref = a.nodeID
	}
	n, err := r.node(ref)
	if err != nil {
		return nil, nil, err
	}
	agent, err := a.cluster.Node(n.ID)
	return n, agent, err
}

func (a *API) importImage(ctx context.Context, in *importInput) (*importAnswer, error) {
	if err := checkArchive(in.kind); err != nil {
		return nil, err
	}
	node, agent, err := a.agentOf(ctx, in.Node)
	if err != nil {
		return nil, err
	}
	images, err := agent.ImportImage(ctx, in.body, in.Name)
	if err != nil {
		in.body.drain()
		return nil, err
	}
	index, err := a.awaitImages(ctx, node.ID, images)
	if err != nil {
		return nil, err
	}
	answer := &importAnswer{Meta: Meta{Index: index}, Body: page[workspace.NodeImage]{Items: []*workspace.NodeImage{}}}
	for i := range images {
		answer.Body.Items = append(answer.Body.Items, &images[i])
	}
	return answer, nil
}

// checkArchive refuses a body that can't be an archive before it is read.
func checkArchive(contentType string) error {
	kind, _, err := mime.ParseMediaType(contentType)
	if contentType != "" && (err != nil || kind != tarType && kind != "application/octet-stream") {
		return newProblem(http.StatusUnsupportedMediaType, workspace.CodeMalformed,
			fmt.Sprintf("it must come as %s, not %q", tarType, contentType), nil)
	}
	return nil
}

// reportWait bounds the wait for a node's report of what it has just imported.
const reportWait = 10 * time.Second

// awaitImages waits until the state shows what a node has imported, so that an
// instance can be made from it right after the answer.
func (a *API) awaitImages(ctx context.Context, node string, images []workspace.NodeImage) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, reportWait)
	defer cancel()
	for {
		r, err := a.reader(ctx, Reading{})
		if err != nil {
			return 0, err
		}
		n := r.Node(node)
		missing := slices.ContainsFunc(images, func(want workspace.NodeImage) bool {
			return n == nil || !slices.ContainsFunc(n.Images, func(has workspace.NodeImage) bool {
				return has.Reference == want.Reference && has.Digest == want.Digest
			})
		})
		if !missing {
			return r.Index(), nil
		}
		if err := r.Wait(ctx, state.TopicNodes); err != nil {
			return 0, workspace.Errorf(workspace.CodeUnavailable,
				"the image is imported, but its node hasn't reported it within %s: berth image ls shows it once it has", reportWait)
		}
	}
}

func (a *API) removeImage(ctx context.Context, in *removeImageInput) (*nothing, error) {
	_, agent, err := a.agentOf(ctx, in.Node)
	if err != nil {
		return nil, err
	}
	return nil, agent.RemoveImage(ctx, in.Reference)
}

// uploadPause is the longest silence of a sender.
const uploadPause = time.Minute

// upload is a request's body that ends when its sender falls silent.
type upload struct {
	from    io.Reader
	control *http.ResponseController
}

// Bounds of drain.
const (
	drainTime  = 10 * time.Second
	drainBytes = 4 << 30
)

// drain takes what the sender has still to send, before an answer that it doesn't
// wait for: a connection that is closed on unread bytes may take the answer with
// it.
func (u *upload) drain() {
	_ = u.control.SetReadDeadline(time.Now().Add(drainTime))
	_, _ = io.CopyN(io.Discard, u.from, drainBytes)
	_ = u.control.SetReadDeadline(time.Time{})
}

func (u *upload) Read(p []byte) (int, error) {
	// Without deadlines (a connection of a test) it is just read.
	_ = u.control.SetReadDeadline(time.Now().Add(uploadPause))
	n, err := u.from.Read(p)
	if err != nil {
		_ = u.control.SetReadDeadline(time.Time{})
	}
	if err != nil && !errors.Is(err, io.EOF) {
		err = workspace.Errorf(workspace.CodeMalformed, "the archive broke off: %v", err)
	}
	return n, err
}
