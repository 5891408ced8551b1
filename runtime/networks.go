package runtime

import (
	"context"
	"net"
)

// Networks gives containers a network of their own: a named network namespace
// with an address, published ports, and rules that keep it from other
// workspaces, the host and metadata services. All methods are safe for
// concurrent use. Attachments outlive the process that made them.
// runtime/network carries it out.
type Networks interface {
	// Attach makes the namespace and connects it. Idempotent for one id with
	// the same ports: what is whole already is given back, what a crash left
	// half done is made anew. On an error nothing stays behind. ErrPortTaken
	// when a host port is in use on this host, ErrNoAddress when the subnet is
	// full, ErrInvalid for an id or port that can't be.
	Attach(ctx context.Context, spec NetworkSpec) (Attachment, error)
	// Detach takes all of an attachment away: namespace, address, ports and
	// rules. Idempotent, also for what a crash left.
	Detach(ctx context.Context, id string) error
	// List gives the ids of all attachments of this host, whole or not.
	List(ctx context.Context) ([]string, error)
	// Dial connects to a port of 127.0.0.1 as seen inside the attachment, so
	// that it reaches servers that listen on loopback only. ErrNotFound when
	// there is no such attachment.
	Dial(ctx context.Context, id string, port int) (net.Conn, error)
	// Repair puts back the rules that somebody else removed (a firewall's
	// reload flushes them) and says what was missing, nothing when all is as it
	// should be.
	Repair(ctx context.Context) (missing []string, err error)
}

// NetworkSpec is an attachment as it is asked for.
type NetworkSpec struct {
	ID       string // the container's
	Hostname string // for its hosts file
	Ports    []PublishedPort
}

// PublishedPort forwards a TCP port of the host to one of the container.
type PublishedPort struct {
	HostIP    string // address of this host to listen on, such as 127.0.0.1
	HostPort  int
	Container int
}

// Attachment is what a container needs of its network.
type Attachment struct {
	NetNS      string // path of the namespace
	Address    string // the container's, such as 10.89.0.7
	ResolvConf string // files of this host to mount at /etc/resolv.conf and /etc/hosts
	Hosts      string
}
