//go:build !mutant_free_device && !mutant_concurrency && !mutant_counter && !mutant_charge_twice && !mutant_truncate && !mutant_keep_reservation && !mutant_day_twice && !mutant_posting_day && !mutant_renew_past && !mutant_idempotency

package state

const planted mutant = ""
