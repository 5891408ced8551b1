//go:build mutant_day_twice

package state

const planted = mutantDayTwice
