//go:build race

package state

// The race detector makes the model several times slower.
const raced = true
