package nvml

import (
	"context"
	"errors"
	"slices"
	"time"

	"berth/gpu"
)

// Events calls handle for what the driver reports, for a device that it loses
// (once) and for one that answers again. Only one caller at a time gets an
// event. A driver that doesn't answer is asked again; that ends nothing.
func (d *Driver) Events(ctx context.Context, handle func(gpu.Event)) error {
	for {
		events, err := d.watch(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case d.isClosed():
			return errClosed
		}
		for _, event := range events {
			handle(event)
		}
		if err != nil {
			select {
			case <-time.After(d.cfg.WatchInterval):
			case <-d.closed:
			case <-ctx.Done():
			}
		}
	}
}

func (d *Driver) isClosed() bool {
	select {
	case <-d.closed:
		return true
	default:
		return false
	}
}

func (d *Driver) watch(ctx context.Context) ([]gpu.Event, error) {
	if !Detect(d.cfg.Root).Loaded {
		return nil, errNotLoaded
	}
	args := watchArgs{
		WaitMillis:    uint32(d.cfg.WatchInterval.Milliseconds()), // #nosec G115 -- of the order of a second
		RestartMillis: uint32(d.cfg.LostInterval.Milliseconds()),  // #nosec G115 -- of the order of a minute
	}
	d.mu.Lock()
	for _, info := range d.known {
		if info.Parent == "" {
			args.Known = append(args.Known, info.UUID)
		}
	}
	d.mu.Unlock()
	var reply watchReply
	if err := d.call(ctx, d.watching, methodWatch, d.cfg.WatchInterval+d.cfg.CallTimeout, args, &reply); err != nil {
		return nil, err
	}
	return append(reply.Events, d.lostAndBack(reply)...), nil
}

var errNotLoaded = errors.New("no NVIDIA driver is loaded")

// lostAndBack keeps what was said about lost devices here, where it outlives
// the child.
func (d *Driver) lostAndBack(reply watchReply) (events []gpu.Event) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	for _, uuid := range d.withSlices(reply.Lost) {
		if !d.lost[uuid] {
			d.lost[uuid] = true
			events = append(events, gpu.Event{UUID: uuid, Kind: gpu.EventLost, At: now})
		}
	}
	for _, uuid := range d.withSlices(reply.Alive) {
		if d.lost[uuid] {
			delete(d.lost, uuid)
			events = append(events, gpu.Event{UUID: uuid, Kind: gpu.EventBack, At: now})
		}
	}
	return events
}

// withSlices adds the slices of whole devices: they share their fate.
func (d *Driver) withSlices(uuids []string) []string {
	all := slices.Clone(uuids)
	for _, info := range d.known {
		if info.Parent != "" && slices.Contains(uuids, info.Parent) {
			all = append(all, info.UUID)
		}
	}
	return all
}
