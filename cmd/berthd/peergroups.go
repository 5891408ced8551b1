package main

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// peerGroups are the supplementary groups of a unix socket's peer; none when
// the kernel won't say (before Linux 4.13).
func peerGroups(fd int) []uint32 {
	groups := make([]uint32, 256)
	for {
		size := uint32(len(groups)) * 4 // #nosec G115 -- a few KiB
		// #nosec G103 -- x/sys has no call for SO_PEERGROUPS
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch {
		case errno == unix.ERANGE && len(groups) < 1<<16:
			groups = make([]uint32, size/4+1)
		case errno != 0:
			return nil
		default:
			return groups[:size/4]
		}
	}
}
