//go:build linux

// Package netlab builds small networks out of kernel network namespaces: a
// switch (a bridge in its own namespace), namespaces plugged into it,
// processes started inside them, and partitions cut at the switch with proof
// that packets were dropped.
//
// It never changes the configuration of the namespace that it is called in,
// beyond creating named namespaces under /run/netns; every link is created in
// place, inside the namespaces that it connects. Needs root.
package netlab
