package state

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/fxamacker/cbor/v2"
)

// One encoding for log entries and snapshots: deterministic CBOR, one form for
// empty collections, unknown fields and duplicate keys refused, so that equal
// states have equal bytes and nothing is silently dropped.
var (
	encoder = must(encodeOptions().EncMode())
	decoder = must(cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		MaxArrayElements:  maxElements,
		MaxMapPairs:       maxElements,
		MaxNestedLevels:   maxDepth,
		// A container's error text may hold any bytes; refusing them here would
		// stop a replica over a message.
		UTF8: cbor.UTF8DecodeInvalid,
	}.DecMode())
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// The encoder has no bounds, so the decoder's are far above what a request of
// 1 MiB can hold: an entry that can't be read stops every replica. The decoder
// counts what is there before it makes room, so they promise no memory.
const (
	maxElements = 16 << 20
	maxDepth    = 256
)

func encodeOptions() cbor.EncOptions {
	o := cbor.CoreDetEncOptions()
	o.Time = cbor.TimeRFC3339Nano
	o.NilContainers = cbor.NilContainerAsEmpty
	return o
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err) // options are constants: wrong ones show in every test
	}
	return v
}

// frameVersion is the first byte of every entry; the CRC-32C of the rest
// follows. The log store serves a flipped bit silently, so entries carry their
// own checksum (docs/domain.md, I12).
const frameVersion = 1

const frameHeader = 5

func seal(payload []byte) []byte {
	out := make([]byte, frameHeader, frameHeader+len(payload))
	out[0] = frameVersion
	binary.BigEndian.PutUint32(out[1:], crc32.Checksum(payload, castagnoli))
	return append(out, payload...)
}

func open(entry []byte) ([]byte, error) {
	if len(entry) < frameHeader {
		return nil, fmt.Errorf("log entry of %d bytes is shorter than its frame", len(entry))
	}
	if entry[0] != frameVersion {
		return nil, fmt.Errorf("log entry has frame version %d, this binary knows %d: use a newer berthd", entry[0], frameVersion)
	}
	payload := entry[frameHeader:]
	want, got := binary.BigEndian.Uint32(entry[1:]), crc32.Checksum(payload, castagnoli)
	if want != got {
		return nil, fmt.Errorf("log entry's checksum is %08x, its content gives %08x: the log is damaged", want, got)
	}
	return payload, nil
}
