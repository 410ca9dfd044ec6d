// Package client is the public API of meshkv: the interfaces that an embedded
// node (package node) and a remote connection (Dial) both implement, their
// value types and their errors.
package client
