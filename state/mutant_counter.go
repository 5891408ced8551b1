//go:build mutant_counter

package state

const planted = mutantCounter
