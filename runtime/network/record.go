package network

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"berth/runtime"
)

// record is what is kept of an attachment. It is written before anything of it
// is made and removed after all of it is gone, so that a crash leaves nothing
// that isn't known.
type record struct {
	Spec    runtime.NetworkSpec
	Address netip.Addr
}

const recordName = "record.json"

var validID = regexp.MustCompile(`^[a-zA-Z0-9_.-]{1,76}$`)

func checkID(id string) error {
	if !validID.MatchString(id) || id == "." || id == ".." {
		return fmt.Errorf("network id %q: want 1 to 76 letters, digits, dashes, dots and underscores: %w", id, runtime.ErrInvalid)
	}
	return nil
}

func (n *Networks) recordDir(id string) string { return filepath.Join(n.dir, id) }

func (n *Networks) nsPath(id string) string { return filepath.Join(n.runDir, "netns", id) }

// attachment is what a container gets of a record.
func (n *Networks) attachment(r record) runtime.Attachment {
	dir := n.recordDir(r.Spec.ID)
	return runtime.Attachment{
		NetNS: n.nsPath(r.Spec.ID), Address: r.Address.String(),
		ResolvConf: filepath.Join(dir, "resolv.conf"), Hosts: filepath.Join(dir, "hosts"),
	}
}

// ids gives all that there is anything of, in order.
func (n *Networks) ids() ([]string, error) {
	found := map[string]bool{}
	for _, dir := range []string{n.dir, filepath.Join(n.runDir, "netns")} {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("list networks: %w", err)
		}
		for _, entry := range entries {
			if checkID(entry.Name()) == nil {
				found[entry.Name()] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(found)), nil
}

// records reads all that are whole. One that a crash cut short is left out: what
// there is of it can only be taken away.
func (n *Networks) records() (map[string]record, error) {
	ids, err := n.ids()
	if err != nil {
		return nil, err
	}
	all := map[string]record{}
	for _, id := range ids {
		raw, err := os.ReadFile(filepath.Join(n.recordDir(id), recordName))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("network %s: %w", id, err)
		}
		var r record
		if json.Unmarshal(raw, &r) == nil && r.Spec.ID == id && r.Address.Is4() {
			all[id] = r
		}
	}
	return all, nil
}

// save writes the record whole or not at all. It isn't synced: a power cut that
// loses it takes what it speaks of along.
func (n *Networks) save(r record) error {
	raw, err := json.Marshal(r)
	if err != nil {
		return err
	}
	dir := n.recordDir(r.Spec.ID)
	if err := os.MkdirAll(dir, 0o755); err != nil { // #nosec G301 -- files in it are mounted into containers
		return err
	}
	path := filepath.Join(dir, recordName)
	if err := os.WriteFile(path+".new", raw, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// freeAddress gives one that no record has, from the one after the last given
// on: what still comes for the last holder of an address shall find nobody.
func (n *Networks) freeAddress(records map[string]record) (netip.Addr, error) {
	used := map[netip.Addr]bool{}
	last := n.last
	for _, r := range records {
		used[r.Address] = true
		if !n.last.IsValid() && n.subnet.Contains(r.Address) && (!last.IsValid() || last.Less(r.Address)) {
			last = r.Address
		}
	}
	first := n.gateway.Next()
	start := first
	if last.IsValid() && n.usable(last.Next()) {
		start = last.Next()
	}
	for address := start; ; {
		if !used[address] {
			n.last = address
			return address, nil
		}
		if address = address.Next(); !n.usable(address) {
			address = first
		}
		if address == start {
			return netip.Addr{}, fmt.Errorf("all %d addresses of %s are in use; a larger network.subnet has more: %w",
				len(used), n.subnet, runtime.ErrNoAddress)
		}
	}
}

// usable is false for the network's own address, the host's, and the broadcast
// address, which is the last one.
func (n *Networks) usable(address netip.Addr) bool {
	return n.subnet.Contains(address.Next()) && n.gateway.Less(address)
}
