package state

import (
	"math/bits"

	"pgregory.net/rapid"
)

// rapid's own numbers and choices favour the small and the first so much that whole
// kinds of commands hardly come. These are about even; they shrink to 0 as well.

// upTo is 0 to most. Two bits more than most has make it about even.
func upTo(t *rapid.T, most int, what string) int {
	if most == 0 {
		return 0
	}
	n := 0
	for range bits.Len(uint(most)) + 2 {
		n <<= 1
		if coin.Draw(t, what) {
			n++
		}
	}
	return n % (most + 1)
}

var coin = rapid.Bool()

func one[T any](t *rapid.T, of []T, what string) T { return of[upTo(t, len(of)-1, what)] }

func rarely(t *rapid.T, what string) bool { return upTo(t, 15, what) == 0 }

// within is a number from least to most: even in the large, odd in the small.
func within(t *rapid.T, least, most int64, what string) int64 {
	const steps = 256
	if most-least < steps {
		return least + int64(upTo(t, int(most-least), what))
	}
	step := (most - least) / steps
	return least + step*int64(upTo(t, steps-1, what)) + rapid.Int64Range(0, step).Draw(t, what)
}
