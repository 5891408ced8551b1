//go:build mutant_charge_twice

package state

const planted = mutantChargeTwice
