// Package keyspace is one eventual keyspace at one node: the indexes that local
// reads use, the change log that watches read, the lifetimes of cells, and the
// mutex that owns the keyspace's replicator.
//
// Reads never take that mutex: Get goes through a concurrent hash index. Writes
// and received frames do, one at a time. Watches and lists take it for one page
// of keys at a time.
package keyspace
