//go:build mutant_idempotency

package state

const planted = mutantIdempotency
