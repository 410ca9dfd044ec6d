//go:build !race

package model

const defaultSchedules = 1500
