//go:build mutant_keep_reservation

package state

const planted = mutantKeepReservation
