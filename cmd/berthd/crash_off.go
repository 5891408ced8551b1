//go:build !crashpoints

package main

// crashPoint is nothing in a daemon that people run.
func crashPoint() func(string) { return nil }
