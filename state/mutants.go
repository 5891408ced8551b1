package state

// mutant names a bug that can be planted, by a build tag mutant_<name>, for the
// property test to catch. No release has one.
type mutant string

// The bugs.
const (
	mutantFreeDevice      mutant = "free_device"      // a held device counts as free
	mutantConcurrency     mutant = "concurrency"      // the limit of active runs isn't checked
	mutantCounter         mutant = "counter"          // concurrency is a counter that a lost run doesn't lower
	mutantChargeTwice     mutant = "charge_twice"     // a part of each charge but the first is booked again
	mutantTruncate        mutant = "truncate"         // each charge is rounded by itself
	mutantKeepReservation mutant = "keep_reservation" // what an ended run had reserved isn't given back
	mutantDayTwice        mutant = "day_twice"        // a clock that went back opens a day again
	mutantPostingDay      mutant = "posting_day"      // a charge is booked to the day of the entry that posts it
	mutantRenewPast       mutant = "renew_past"       // a renewal doesn't look at the budgets
	mutantIdempotency     mutant = "idempotency"      // the outcomes of requests are kept outside the state: a restore forgets them
)
