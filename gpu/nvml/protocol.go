package nvml

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"

	"berth/gpu"
)

// maxFrame bounds a message between parent and child, in bytes: a host of 64
// devices with 7 slices each needs well below 1 MiB.
const maxFrame = 8 << 20

// What the parent can ask of the child.
const (
	methodHello     = "hello"     // settings → nothing; opens the library
	methodInventory = "inventory" // knownDevices → inventoryReply
	methodReadings  = "readings"  // nothing → []gpu.Reading
	methodProcesses = "processes" // nothing → []gpu.Process
	methodWatch     = "watch"     // watchArgs → watchReply
)

// request is one frame to the child, response one from it. The child answers
// each request once, not necessarily in order: a watch waits beside the others.
type request struct {
	ID     uint64          `json:"id"`
	Method string          `json:"method"`
	Args   json.RawMessage `json:"args,omitempty"`
}

type response struct {
	ID     uint64          `json:"id"`
	Error  string          `json:"error,omitempty"`
	Result json.RawMessage `json:"result,omitempty"`
}

// settings tell a new child what it works on.
type settings struct {
	LibraryPath string `json:"library_path,omitempty"`
	Root        string `json:"root"`
}

// knownDevices are those of the latest inventory: a device that the driver has
// lost can't say its own name any more.
type knownDevices struct {
	Devices []gpu.Info `json:"devices"`
}

type inventoryReply struct {
	Inventory gpu.Inventory    `json:"inventory"`
	Files     []Mount          `json:"files,omitempty"`  // of the driver, for containers
	Slices    map[string]slice `json:"slices,omitempty"` // by UUID
}

// slice is where a MIG slice's capabilities are in /proc/driver/nvidia.
type slice struct {
	GPUInstance     int `json:"gi"`
	ComputeInstance int `json:"ci"`
}

type watchArgs struct {
	WaitMillis    uint32   `json:"wait_millis"`
	RestartMillis uint32   `json:"restart_millis"`  // how often to start anew for a lost device
	Known         []string `json:"known,omitempty"` // UUIDs of whole devices
}

// watchReply says which devices answer and which are lost; one that is in
// neither list is unknown.
type watchReply struct {
	Events []gpu.Event `json:"events,omitempty"`
	Alive  []string    `json:"alive,omitempty"`
	Lost   []string    `json:"lost,omitempty"`
}

// writeFrame writes the length as four bytes, big endian, and then JSON.
func writeFrame(w io.Writer, message any) error {
	body, err := json.Marshal(message)
	if err != nil {
		return fmt.Errorf("encode a message: %w", err)
	}
	if len(body) > maxFrame {
		return fmt.Errorf("a message of %d bytes, at most %d can be sent", len(body), maxFrame)
	}
	frame := make([]byte, 4, 4+len(body))
	binary.BigEndian.PutUint32(frame, uint32(len(body))) // #nosec G115 -- bounded above
	_, err = w.Write(append(frame, body...))
	return err
}

// readFrame gives io.EOF when the other side has closed between two messages.
func readFrame(r io.Reader, message any) error {
	var length [4]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(length[:])
	if n > maxFrame {
		return fmt.Errorf("a message of %d bytes, at most %d are read", n, maxFrame)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return fmt.Errorf("a message ends early: %w", err)
	}
	if err := json.Unmarshal(body, message); err != nil {
		return fmt.Errorf("decode a message: %w", err)
	}
	return nil
}
