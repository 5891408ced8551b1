package workspace

import (
	"context"
	"io"

	"berth/gpu"
)

// NodeService is what a server asks of a node's agent. Its streams run over the
// node's own outbound connection, so that a node that can't be dialled serves
// them too. Errors are Errors with a code.
type NodeService interface {
	// ImportImage stores an OCI archive's images on the node.
	ImportImage(ctx context.Context, archive io.Reader, name string) ([]NodeImage, error)
	// PullImage fetches an image from its registry. progress may be nil.
	PullImage(ctx context.Context, source ImageSource, progress func(PullProgress)) (NodeImage, error)
	// ResolveImage asks the registry which digest a reference names now.
	ResolveImage(ctx context.Context, source ImageSource) (digest string, err error)
	// RemoveImage forgets a reference on the node.
	RemoveImage(ctx context.Context, reference string) error
	// Pulling says how far the pull of a run's image is; false: there is none.
	Pulling(run string) (PullProgress, bool)

	// Exec runs a process in a run's container and gives its exit code. It ends
	// with ctx.
	Exec(ctx context.Context, run string, spec ExecSpec, streams ExecStreams) (code int, err error)
	// Logs writes a run's output to w; with Follow until the run has ended or
	// ctx ends.
	Logs(ctx context.Context, run string, spec LogSpec, w io.Writer) error
	// Dial connects to a port inside a run's container, on its loopback.
	Dial(ctx context.Context, run string, port int) (Stream, error)
	// CopyFrom writes a file or directory of a run's container to w, as a tar
	// archive whose names begin with the path's last element.
	CopyFrom(ctx context.Context, run, path string, w io.Writer) error
	// CopyTo unpacks a tar archive into a directory of a run's container, which
	// must exist, as the container's user. Entries never leave the directory.
	CopyTo(ctx context.Context, run, dir string, r io.Reader) error

	// Readings are what the node's devices measure now.
	Readings(ctx context.Context) ([]gpu.Reading, error)
}

// Stream is a connection whose sending side can be closed alone.
type Stream interface {
	io.ReadWriteCloser
	CloseWrite() error
}

// ImageSource says where an image comes from.
type ImageSource struct {
	Reference string
	Digest    string         // when set, just this content
	Login     *RegistryLogin // nil: anonymous
}

// PullProgress is how far a pull is. Soft state: it never enters the log.
type PullProgress struct {
	Reference  string `json:"reference"`
	DoneBytes  int64  `json:"done_bytes"`
	TotalBytes int64  `json:"total_bytes"` // grows while layers are found
	Layers     int    `json:"layers"`
	LayersDone int    `json:"layers_done"`
	Unpacking  bool   `json:"unpacking,omitempty"` // all is fetched
}

// ExecSpec is a process to run in a container.
type ExecSpec struct {
	Command  []string     `json:"command"`
	Env      []EnvVar     `json:"env,omitempty"`
	Dir      string       `json:"dir,omitempty"` // empty: the container's
	Terminal bool         `json:"terminal,omitempty"`
	Size     TerminalSize `json:"size,omitzero"`
}

// TerminalSize in characters.
type TerminalSize struct {
	Columns uint16 `json:"columns"`
	Rows    uint16 `json:"rows"`
}

// ExecStreams connect a process. Nil readers are empty, nil writers discard.
type ExecStreams struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Resize         <-chan TerminalSize
}

// LogSpec says which part of a run's output is wanted.
type LogSpec struct {
	Follow bool
	Tail   int // lines from the end; negative: all that is kept
}
