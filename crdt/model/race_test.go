//go:build race

package model

// Under the race detector a schedule takes some five times as long.
const defaultSchedules = 300
