package volume

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// superblock is what this package reads of an ext4 superblock (kernel
// documentation, filesystems/ext4/super.rst).
type superblock struct {
	bytes     int64 // size of the file system
	hasErrors bool  // the kernel found something wrong in it
}

var errNoExt4 = errors.New("there is no ext4 file system")

func readSuperblock(image io.ReaderAt) (superblock, error) {
	const (
		start       = 1024
		size        = 1024
		blocksLow   = 0x4
		logBlock    = 0x18
		magic       = 0x38
		state       = 0x3a
		incompat    = 0x60
		blocksHigh  = 0x150
		magicNumber = 0xef53
		stateErrors = 0x2
		incompat64  = 0x80
	)
	raw := make([]byte, size)
	if _, err := image.ReadAt(raw, start); err != nil {
		return superblock{}, fmt.Errorf("read the superblock: %w", err)
	}
	order := binary.LittleEndian
	shift := order.Uint32(raw[logBlock:])
	if order.Uint16(raw[magic:]) != magicNumber || shift > 6 {
		return superblock{}, errNoExt4
	}
	blocks := int64(order.Uint32(raw[blocksLow:]))
	if order.Uint32(raw[incompat:])&incompat64 != 0 {
		blocks |= int64(order.Uint32(raw[blocksHigh:])) << 32
	}
	return superblock{
		bytes:     blocks << (10 + shift),
		hasErrors: order.Uint16(raw[state:])&stateErrors != 0,
	}, nil
}
