//go:build race

package reconcile

// raceEnabled: tests with a million cells would take too long.
const raceEnabled = true
