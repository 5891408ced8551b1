package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"time"

	"berth/gpu"
	"berth/workspace"
)

// ledger is what must outlive the agent (agent.json), and who holds which
// device here now. It is safe for concurrent use.
type ledger struct {
	path string

	mu   sync.Mutex
	kept kept
	held map[string]map[string]int // device → run → milli, while the run's container may live
}

// kept is the part on disk.
type kept struct {
	Cluster string    `json:"cluster"`
	Seen    gpu.Epoch `json:"seen"` // highest placement acted on: no older view is believed
	// Devices remembers placements per device, by UUID.
	Devices map[string]placed `json:"devices"`
	// Ends are ends of runs whose containers are deleted, until recorded.
	Ends map[string]workspace.RunReport `json:"ends"`
	// Stops says when the grace of runs began that are to stop.
	Stops map[string]workspace.Stamp `json:"stops"`
	// Lives are those of runs' processes.
	Lives map[string]life `json:"lives,omitempty"`
	// Ports are the host ports of instances.
	Ports    map[string]hostPorts `json:"ports,omitempty"`
	LastPort int                  `json:"last_port,omitempty"` // picked
	Starts   uint64               `json:"starts,omitempty"`    // of runs with ports
	// Health is what was reported of devices that weren't healthy last.
	Health map[string]deviceHealth `json:"health,omitempty"`
}

// placed is the latest placement made here on a device.
type placed struct {
	Run   string    `json:"run"`
	Epoch gpu.Epoch `json:"epoch"`
	Whole gpu.Epoch `json:"whole"` // of the latest run that had the whole device
}

// busyError: an older run's container with the device isn't gone.
type busyError struct{ device, run string }

func (e *busyError) Error() string {
	return fmt.Sprintf("device %s is still held on this host by run %s, whose container isn't gone", e.device, e.run)
}

// staleError: the device was given to a later placement already.
type staleError struct {
	device string
	last   placed
}

func (e *staleError) Error() string {
	return fmt.Sprintf("device %s was given to run %s by a later placement (%d.%d)",
		e.device, e.last.Run, e.last.Epoch.Incarnation, e.last.Epoch.Index)
}

func openLedger(path string) (*ledger, error) {
	l := &ledger{path: path, held: map[string]map[string]int{}}
	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("agent: read what was kept: %w", err)
	default:
		if err := json.Unmarshal(text, &l.kept); err != nil {
			return nil, fmt.Errorf("agent: %s is damaged: %w; with no container of berth running on this host it may be removed", path, err)
		}
	}
	l.kept.fill()
	return l, nil
}

func (k *kept) fill() {
	if k.Devices == nil {
		k.Devices = map[string]placed{}
	}
	if k.Ends == nil {
		k.Ends = map[string]workspace.RunReport{}
	}
	if k.Stops == nil {
		k.Stops = map[string]workspace.Stamp{}
	}
	if k.Lives == nil {
		k.Lives = map[string]life{}
	}
	if k.Ports == nil {
		k.Ports = map[string]hostPorts{}
	}
}

// enter says whether a view of that cluster at that moment may be believed. A
// node that has joined another cluster starts anew: epochs of two clusters
// can't be compared, and containers of the old one are known by their label.
func (l *ledger) enter(cluster string, at gpu.Epoch) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.kept.Cluster != cluster {
		l.kept = kept{Cluster: cluster}
		l.kept.fill()
	}
	return !at.Less(l.kept.Seen)
}

// claim takes the assignment's devices for its run and keeps their epochs on
// disk before it returns. It gives a *busyError or *staleError when it may not;
// any other error means that the disk failed.
func (l *ledger) claim(a *workspace.Assignment) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, d := range a.Devices {
		if err := l.admit(a, d); err != nil {
			return err
		}
	}
	next := l.kept
	next.Devices = maps.Clone(l.kept.Devices)
	if next.Seen.Less(a.Epoch) {
		next.Seen = a.Epoch
	}
	for _, d := range a.Devices {
		last := next.Devices[d.UUID]
		if !a.Epoch.Less(last.Epoch) {
			last.Run, last.Epoch = a.Run, a.Epoch
		}
		if whole(d) {
			last.Whole = a.Epoch
		}
		next.Devices[d.UUID] = last
	}
	if next.Seen != l.kept.Seen || !maps.Equal(next.Devices, l.kept.Devices) {
		if err := l.write(next); err != nil {
			return err
		}
	}
	l.hold(a.Run, a.Devices)
	return nil
}

// admit checks one device. A run with the whole device comes after all earlier
// runs on it, so what is older than it is over; two shares may come in any
// order.
func (l *ledger) admit(a *workspace.Assignment, d workspace.Allotment) error {
	last := l.kept.Devices[d.UUID]
	if a.Epoch.Less(last.Whole) || whole(d) && a.Epoch.Less(last.Epoch) {
		return &staleError{device: d.UUID, last: last}
	}
	sum, other := d.Milli, ""
	for run, milli := range l.held[d.UUID] {
		if run != a.Run {
			sum += milli
			other = run
		}
	}
	if sum > gpu.MilliPerDevice {
		return &busyError{device: d.UUID, run: other}
	}
	return nil
}

func whole(d workspace.Allotment) bool { return d.Milli >= gpu.MilliPerDevice }

// adopt notes the devices of a container that was found here.
func (l *ledger) adopt(run string, devices []workspace.Allotment) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hold(run, devices)
}

func (l *ledger) hold(run string, devices []workspace.Allotment) {
	for _, d := range devices {
		if l.held[d.UUID] == nil {
			l.held[d.UUID] = map[string]int{}
		}
		l.held[d.UUID][run] = d.Milli
	}
}

// free lets go of a run's devices: its container is gone, or was never made.
func (l *ledger) free(run string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, runs := range l.held {
		delete(runs, run)
	}
}

// keepEnd writes down how a run ended, before its container, the only other
// witness, is deleted. A run's first end stays, but for what is learned of it
// later.
func (l *ledger) keepEnd(end workspace.RunReport) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if first, ok := l.kept.Ends[end.Run]; ok && (first.Phase != end.Phase || first.Reason != end.Reason) {
		return nil
	}
	next := l.kept
	next.Ends = maps.Clone(l.kept.Ends)
	next.Ends[end.Run] = end
	return l.write(next)
}

// end gives how a run ended, when its container was deleted by this agent or
// one before it and the cluster may not know yet.
func (l *ledger) end(run string) *workspace.RunReport {
	l.mu.Lock()
	defer l.mu.Unlock()
	if end, ok := l.kept.Ends[run]; ok {
		return &end
	}
	return nil
}

// keepStop writes down when the grace of a run began.
func (l *ledger) keepStop(run string, began workspace.Stamp) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	next := l.kept
	next.Stops = maps.Clone(l.kept.Stops)
	next.Stops[run] = began
	return l.write(next)
}

// stop gives when the grace of a run began, on the clock of this boot; 0: it
// hasn't.
func (l *ledger) stop(run, bootID string) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if began := l.kept.Stops[run]; began.BootID == bootID {
		return time.Duration(began.BoottimeMS) * time.Millisecond
	}
	return 0
}

// keepLife writes down what is known of a run's process.
func (l *ledger) keepLife(run string, is life) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	next := l.kept
	next.Lives = maps.Clone(l.kept.Lives)
	next.Lives[run] = is
	return l.write(next)
}

// keepLived writes down how long processes have lived so far, if that is news.
func (l *ledger) keepLived(runs []workspace.Livedness) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	next := l.kept
	next.Lives = maps.Clone(l.kept.Lives)
	for _, run := range runs {
		if is, ok := next.Lives[run.Run]; ok {
			is.Lived = max(is.Lived, run.LivedMS)
			next.Lives[run.Run] = is
		}
	}
	if maps.Equal(next.Lives, l.kept.Lives) {
		return nil
	}
	return l.write(next)
}

// life gives what is known of a run's process. Ends of another boot are none.
func (l *ledger) life(run, bootID string) life {
	l.mu.Lock()
	defer l.mu.Unlock()
	is, ok := l.kept.Lives[run]
	if !ok {
		return life{BootID: bootID}
	}
	if is.BootID != bootID {
		is.Lease, is.Max = bound{}, bound{}
	}
	return is
}

// forget drops ends, stops and lives of all runs but the wanted. The disk follows with
// the next write: one too many does no harm there.
func (l *ledger) forget(wanted func(run string) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	maps.DeleteFunc(l.kept.Ends, func(run string, _ workspace.RunReport) bool { return !wanted(run) })
	maps.DeleteFunc(l.kept.Stops, func(run string, _ workspace.Stamp) bool { return !wanted(run) })
	maps.DeleteFunc(l.kept.Lives, func(run string, _ life) bool { return !wanted(run) })
}

// write replaces the file, whole or not at all, and the copy in memory.
func (l *ledger) write(next kept) error {
	text, err := json.Marshal(next)
	if err != nil {
		return fmt.Errorf("agent: encode %s: %w", l.path, err)
	}
	if err := replaceFile(l.path, text); err != nil {
		return fmt.Errorf("agent: keep %s: %w", l.path, err)
	}
	l.kept = next
	return nil
}

func replaceFile(path string, text []byte) error {
	file, err := os.OpenFile(path+".new", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(text)
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
