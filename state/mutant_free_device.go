//go:build mutant_free_device

package state

const planted = mutantFreeDevice
