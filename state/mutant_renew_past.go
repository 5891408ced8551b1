//go:build mutant_renew_past

package state

const planted = mutantRenewPast
