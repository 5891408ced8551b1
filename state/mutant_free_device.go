//go:build mutant_free_device

package state

// mutantFreeDevice plants a bug for the property test to catch: a held device
// counts as free.
const mutantFreeDevice = true
