//go:build mutant_truncate

package state

const planted = mutantTruncate
