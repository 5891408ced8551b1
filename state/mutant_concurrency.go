//go:build mutant_concurrency

package state

const planted = mutantConcurrency
