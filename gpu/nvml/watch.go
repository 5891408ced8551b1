package nvml

import (
	"sync"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"berth/gpu"
)

// watchState is what one watch leaves to the next.
type watchState struct {
	mu         sync.Mutex
	events     nvml.EventSet // nil: none is open
	registered map[string]bool
	restarted  time.Time // when the library was last started anew for a lost device
}

// forget closes the set of events: the library is about to be shut down.
func (w *watchState) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.events != nil {
		_ = w.events.Free()
	}
	w.events, w.registered = nil, nil
}

// watch waits for events and then looks which devices answer.
func (s *server) watch(args watchArgs) (watchReply, error) {
	s.restartForLost(time.Duration(args.RestartMillis) * time.Millisecond)
	s.mu.RLock()
	defer s.mu.RUnlock()
	began := time.Now()
	wait := time.Duration(args.WaitMillis) * time.Millisecond
	devices, err := s.list()
	if err != nil {
		return watchReply{}, err
	}
	reply := watchReply{Events: s.await(devices, wait)}
	if left := wait - time.Since(began); left > 0 && len(reply.Events) == 0 {
		time.Sleep(left) // the library can't wait, or doesn't
	}
	answers := map[string]bool{}
	for _, d := range devices {
		if d.info.Parent != "" {
			continue
		}
		answers[d.info.UUID] = true
		switch _, ret := d.GetMemoryInfo(); {
		case isLost(ret):
			reply.Lost = append(reply.Lost, d.info.UUID)
		case ret == nvml.SUCCESS || ret == nvml.ERROR_NOT_SUPPORTED:
			reply.Alive = append(reply.Alive, d.info.UUID)
		}
	}
	for _, uuid := range args.Known {
		if !answers[uuid] {
			reply.Lost = append(reply.Lost, uuid)
		}
	}
	if len(reply.Lost) > 0 {
		s.markStale()
	}
	return reply, nil
}

// restartForLost starts the library anew once in a while as long as a device is
// lost: nothing else shows that it was reset.
func (s *server) restartForLost(every time.Duration) {
	s.watching.mu.Lock()
	due := time.Since(s.watching.restarted) >= every
	if due {
		s.watching.restarted = time.Now()
	}
	s.watching.mu.Unlock()
	if due {
		_ = s.refresh() // if it failed, so does what follows
	}
}

// await gives the events of at most wait.
func (s *server) await(devices []*device, wait time.Duration) (events []gpu.Event) {
	set := s.eventSet(devices)
	if set == nil {
		return nil
	}
	for {
		data, ret := set.Wait(uint32(wait.Milliseconds())) // #nosec G115 -- of the order of a second
		if ret != nvml.SUCCESS {
			return events
		}
		if event, ok := s.event(devices, data); ok {
			events = append(events, event)
		}
		wait = 0 // what has come meanwhile, without waiting
	}
}

const watched = nvml.EventTypeXidCriticalError | nvml.EventTypeSingleBitEccError | nvml.EventTypeDoubleBitEccError

// eventSet is the set in which all devices are registered for what they support;
// nil where the driver has no events.
func (s *server) eventSet(devices []*device) nvml.EventSet {
	for _, symbol := range []string{"nvmlEventSetCreate", "nvmlEventSetFree", "nvmlDeviceRegisterEvents", "nvmlDeviceGetSupportedEventTypes"} {
		if !s.lib.has(symbol) {
			return nil
		}
	}
	if !s.lib.has("nvmlEventSetWait_v2", "nvmlEventSetWait") {
		return nil
	}
	w := &s.watching
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.events == nil {
		set, ret := s.lib.EventSetCreate()
		if ret != nvml.SUCCESS {
			return nil
		}
		w.events, w.registered = set, map[string]bool{}
	}
	for _, d := range devices {
		if d.info.Parent != "" || w.registered[d.info.UUID] {
			continue
		}
		supported, ret := d.GetSupportedEventTypes()
		if ret != nvml.SUCCESS || supported&watched == 0 || d.RegisterEvents(supported&watched, w.events) == nvml.SUCCESS {
			w.registered[d.info.UUID] = true
		}
	}
	return w.events
}

// noInstance is what the library gives for an event of a whole device.
const noInstance = 0xFFFFFFFF

func (s *server) event(devices []*device, data nvml.EventData) (gpu.Event, bool) {
	event := gpu.Event{At: time.Now()}
	switch data.EventType {
	case nvml.EventTypeXidCriticalError:
		event.Kind, event.Code = gpu.EventXid, data.EventData
	case nvml.EventTypeSingleBitEccError:
		event.Kind = gpu.EventSingleBitECC
	case nvml.EventTypeDoubleBitEccError:
		event.Kind = gpu.EventDoubleBitECC
	default:
		return event, false
	}
	for _, d := range devices {
		if d.info.Parent == "" && d.Device == data.Device {
			event.UUID = d.info.UUID
		}
	}
	// An old driver leaves the instances unset.
	if event.Kind == gpu.EventXid && data.GpuInstanceId != noInstance && s.lib.has("nvmlEventSetWait_v2") {
		for _, d := range devices {
			if d.info.Parent == event.UUID && d.slice.is(data) {
				event.UUID = d.info.UUID
			}
		}
	}
	return event, event.UUID != ""
}

// is reports whether an event is the slice's own.
func (s slice) is(data nvml.EventData) bool {
	return uint32(s.GPUInstance) == data.GpuInstanceId && uint32(s.ComputeInstance) == data.ComputeInstanceId // #nosec G115 -- below ten
}
