//go:build mutant_posting_day

package state

const planted = mutantPostingDay
