// Package meshkv holds nothing but this comment and the test of the module's
// import rules. Start at package node to embed a node, at package client for
// the interfaces, and at cmd/meshkv for the program.
package meshkv
