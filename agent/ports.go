package agent

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"berth/runtime"
	"berth/workspace"
)

// errNoPorts: every host port of the range is some instance's.
var errNoPorts = errors.New("every host port of the range is in use")

// hostPorts are the ports of this host that an instance has, by the names of its
// own ports. They are kept while it is stopped, so that its addresses stay; when
// the range is used up, those go first whose instance has not run for longest.
type hostPorts struct {
	Used uint64         `json:"used"` // rises with each start of any instance
	By   map[string]int `json:"by"`
}

// owner is whose the ports of a run are.
func portsOwner(a *workspace.Assignment) string { return cmp.Or(a.Instance, a.Run) }

// moving says that ports of a run can't be had: besides those it keeps, the run
// gets others for the named.
type moving struct {
	had   map[string]int
	names []string
}

// publish gives the host port of each of a run's ports, those it had where it
// can be. It writes the disk when one is new; errNoPorts when there is none left,
// any other error is one of the disk. inUse says whose ports must stay.
func (l *ledger) publish(a *workspace.Assignment, at Publish, move moving, inUse func(owner string) bool) (map[string]int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	owner := portsOwner(a)
	own := l.kept.Ports[owner]
	next := l.kept
	next.Ports = maps.Clone(l.kept.Ports)
	next.Starts++
	ports := map[string]int{}
	maps.Copy(ports, own.By)
	maps.Copy(ports, move.had)
	for _, port := range a.Spec.Ports {
		if ports[port.Name] >= at.First && ports[port.Name] <= at.Last && !slices.Contains(move.names, port.Name) {
			continue
		}
		next.Ports[owner] = hostPorts{Used: next.Starts, By: ports} // its own new ones are taken too
		picked, err := next.pick(owner, at, inUse)
		if err != nil {
			return nil, err
		}
		ports[port.Name] = picked
	}
	next.Ports[owner] = hostPorts{Used: next.Starts, By: ports}
	if maps.Equal(ports, own.By) {
		l.kept = next // when it ran last is written with the next change
		return ports, nil
	}
	return ports, l.write(next)
}

// pick finds a port that no instance has, beginning after the one picked last:
// an address that was somebody's isn't somebody else's at once.
func (k *kept) pick(owner string, at Publish, inUse func(owner string) bool) (int, error) {
	for {
		taken := map[int]bool{}
		for _, ports := range k.Ports {
			for _, port := range ports.By {
				taken[port] = true
			}
		}
		for range at.Last - at.First + 1 {
			if k.LastPort++; k.LastPort < at.First || k.LastPort > at.Last {
				k.LastPort = at.First
			}
			if !taken[k.LastPort] {
				return k.LastPort, nil
			}
		}
		oldest := ""
		for other, ports := range k.Ports {
			if other != owner && !inUse(other) && (oldest == "" || ports.Used < k.Ports[oldest].Used) {
				oldest = other
			}
		}
		if oldest == "" {
			return 0, fmt.Errorf("ports %d to %d: %w", at.First, at.Last, errNoPorts)
		}
		delete(k.Ports, oldest)
	}
}

// access says where a run's ports are published. Secrets in paths stay names.
func (l *ledger) access(a *workspace.Assignment, address string) []workspace.AccessInfo {
	l.mu.Lock()
	defer l.mu.Unlock()
	var list []workspace.AccessInfo
	for _, port := range a.Spec.Ports {
		if host := l.kept.Ports[portsOwner(a)].By[port.Name]; host != 0 {
			list = append(list, workspace.AccessInfo{
				Type: "NODE_PORT", Protocol: port.Protocol, Host: address, Port: host, Name: port.Name, Path: port.Path,
			})
		}
	}
	return list
}

// publishedPorts is what the network is asked for.
func publishedPorts(a *workspace.Assignment, address string, host map[string]int) ([]runtime.PublishedPort, error) {
	var list []runtime.PublishedPort
	for _, port := range a.Spec.Ports {
		number, err := strconv.Atoi(port.Number)
		if err != nil {
			return nil, fmt.Errorf("port %s of the template: %q is no number: %w", port.Name, port.Number, runtime.ErrInvalid)
		}
		list = append(list, runtime.PublishedPort{HostIP: address, HostPort: host[port.Name], Container: number})
	}
	return list, nil
}
