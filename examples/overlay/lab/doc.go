//go:build linux

// Package lab runs an overlay network on one machine: a switch, hosts and
// containers as network namespaces, and one agent process, with an embedded
// meshkv node, inside each host's namespace.
//
// What exists is planned and recorded in a state file before it is made, so
// that Down removes everything after a crash at any point, and so that
// separate programs can act on one lab.
package lab
