package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/vishvananda/netlink"

	"berth/runtime"
)

// Attach implements runtime.Networks.
func (n *Networks) Attach(ctx context.Context, spec runtime.NetworkSpec) (runtime.Attachment, error) {
	if err := checkID(spec.ID); err != nil {
		return runtime.Attachment{}, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	records, err := n.records()
	if err != nil {
		return runtime.Attachment{}, err
	}
	old, known := records[spec.ID]
	if known && n.whole(old) && slices.Equal(old.Spec.Ports, spec.Ports) {
		old.Spec.Hostname = spec.Hostname
		return n.attachment(old), n.writeFiles(old)
	}
	if err := checkPorts(ctx, spec, records); err != nil {
		return runtime.Attachment{}, fmt.Errorf("network %s: %w", spec.ID, err)
	}
	r := record{Spec: spec, Address: old.Address}
	if !known || !n.usable(r.Address) {
		if r.Address, err = n.freeAddress(records); err != nil {
			return runtime.Attachment{}, fmt.Errorf("network %s: %w", spec.ID, err)
		}
	}
	err = n.takeApart(ctx, spec.ID, records)
	if err == nil {
		err = n.build(ctx, r, records)
	}
	if err != nil {
		clean := n.takeApart(context.WithoutCancel(ctx), spec.ID, records)
		// Where rules can't be set, there is none of this attachment's either.
		clean = errors.Join(clean, os.RemoveAll(n.recordDir(spec.ID)))
		return runtime.Attachment{}, fmt.Errorf("network %s: %w", spec.ID, errors.Join(err, clean))
	}
	return n.attachment(r), nil
}

// whole is whether all of an attachment but its rules, which Repair and every
// change set as one, is there.
func (n *Networks) whole(r record) bool {
	bridge, err := findLink(n.bridge)
	if err != nil || bridge == nil {
		return false
	}
	link, err := findLink(n.linkName(r.Spec.ID))
	if err != nil || link == nil || !plugged(link, bridge) {
		return false
	}
	path := n.nsPath(r.Spec.ID)
	return n.usable(r.Address) && isNetNS(path) && hasAddress(path, r.Address)
}

func plugged(link, bridge netlink.Link) bool {
	return link.Attrs().MasterIndex == bridge.Attrs().Index && link.Attrs().Flags&net.FlagUp != 0
}

// build makes an attachment from nothing. The rules are there before anything
// could pass, and the record before anything that it speaks of.
func (n *Networks) build(ctx context.Context, r record, records map[string]record) error {
	bridge, _, err := n.ensureHost(ctx)
	if err != nil {
		return err
	}
	if err := n.save(r); err != nil {
		return err
	}
	records[r.Spec.ID] = r
	if err := n.writeFiles(r); err != nil {
		return err
	}
	if err := n.firewall.apply(ctx, records); err != nil {
		return err
	}
	if err := makeNetNS(n.nsPath(r.Spec.ID), setLoopbackUp); err != nil {
		return err
	}
	return n.connect(bridge, r)
}

// ensureHost makes what all attachments share, but for the rules of nftables,
// and says what was missing.
func (n *Networks) ensureHost(ctx context.Context) (bridge netlink.Link, missing []string, err error) {
	bridge, missing, err = n.ensureBridge()
	if err != nil {
		return nil, nil, err
	}
	changed, err := n.ensureSysctls()
	if err != nil {
		return nil, nil, err
	}
	missing = append(missing, changed...)
	hooked, err := n.firewall.hook(ctx)
	if err != nil {
		return nil, nil, err
	}
	missing = append(missing, hooked...)
	if bridge.Attrs().Flags&net.FlagUp == 0 {
		missing = append(missing, "bridge "+n.bridge+" was down")
		if err := netlink.LinkSetUp(bridge); err != nil {
			return nil, nil, fmt.Errorf("set %s up: %w", n.bridge, err)
		}
	}
	return bridge, missing, nil
}

// Detach implements runtime.Networks.
func (n *Networks) Detach(ctx context.Context, id string) error {
	if err := checkID(id); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	records, err := n.records()
	if err != nil {
		return err
	}
	if err := n.takeApart(ctx, id, records); err != nil {
		return fmt.Errorf("network %s: %w", id, err)
	}
	return nil
}

// takeApart removes all that there is of an id, its record last.
func (n *Networks) takeApart(ctx context.Context, id string, records map[string]record) error {
	if err := removeLink(n.linkName(id)); err != nil {
		return err
	}
	if err := removeNetNS(n.nsPath(id)); err != nil {
		return err
	}
	r, known := records[id]
	delete(records, id)
	if known {
		if err := n.forgetNeighbour(r.Address); err != nil {
			return err
		}
	}
	if known && len(r.Spec.Ports) > 0 {
		if err := n.firewall.apply(ctx, records); err != nil {
			return err
		}
	}
	return os.RemoveAll(n.recordDir(id))
}

// List implements runtime.Networks.
func (n *Networks) List(ctx context.Context) ([]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return n.ids()
}

// Clear takes everything away that was ever made here: attachments, rules,
// bridge and directories. For a host that berth leaves.
func (n *Networks) Clear(ctx context.Context) error {
	ids, err := n.ids()
	if err != nil {
		return err
	}
	for _, id := range ids {
		if err := n.Detach(ctx, id); err != nil {
			return err
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.firewall.remove(ctx); err != nil {
		return err
	}
	if bridge, err := findLink(n.bridge); err == nil && bridge != nil && n.checkOwner(bridge) == nil {
		if err := removeLink(n.bridge); err != nil {
			return err
		}
	}
	return errors.Join(os.RemoveAll(n.dir), os.RemoveAll(filepath.Join(n.runDir, "netns")))
}

// Dial implements runtime.Networks.
func (n *Networks) Dial(ctx context.Context, id string, port int) (net.Conn, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	path := n.nsPath(id)
	if !isNetNS(path) {
		return nil, fmt.Errorf("network %s: %w", id, runtime.ErrNotFound)
	}
	var conn net.Conn
	err := inNetNS(path, func() (err error) {
		// An address that needs no look-up is dialled on this very thread.
		var dialer net.Dialer
		conn, err = dialer.DialContext(ctx, "tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("network %s: %w", id, err)
	}
	return conn, nil
}
