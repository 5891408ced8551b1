// Package state holds what the cluster remembers and how one command changes
// it. It is pure: no clock, no randomness, no I/O; every replica that applies
// the same entries in the same order has the same bytes. One file per table,
// with the commands that change the table beside it. Every rule that must never
// be broken is checked here, inside Apply, where all writes are in one order.
package state
