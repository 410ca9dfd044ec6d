//go:build race

package node_test

// underRace: everything takes ten times as long.
const underRace = true
