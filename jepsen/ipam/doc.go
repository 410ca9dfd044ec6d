// Package ipam holds a test only: allocators that race for the /24s of the overlay
// (examples/overlay) while the leader of their strong keyspace is killed again and
// again.
package ipam
