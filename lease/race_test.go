//go:build race

package lease

// The race detector makes the model several times slower.
const raced = true
