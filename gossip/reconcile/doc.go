// Package reconcile finds out what two replicas of a keyspace do not share, at
// a cost that follows the difference and not the number of keys, and drives the
// session rule of package crdt with it.
//
// The nouns:
//
//   - A Trie sums keyed hashes of the live cells of a replica, bucketed by the
//     hash of their key, so that equal subtrees need no exchange. It is kept up
//     to date by its owner and gives immutable snapshots in O(1).
//   - A Snapshot is (S⁰, C⁰, D⁰) of one replica, taken together.
//   - A Session is one side of one reconciliation. It exchanges encoded payloads
//     with the session of the peer, yields the cells that the peer offers, and
//     ends with what the replica's Conclude needs.
//
// Everything here is pure: no I/O, goroutines, time or randomness.
//
// Sources: hash trees over sets, Demers et al. 1987, "Epidemic Algorithms for
// Replicated Database Maintenance" (checksums) and Minsky, Trachtenberg, Zippel
// 2003, "Set Reconciliation with Nearly Optimal Communication Complexity"
// (partitioning by prefixes). Departure: sums of hashes modulo 2⁶⁴ instead of
// hashes of hashes, so that one insertion costs one addition for each level,
// and the shape of a tree does not matter to its sums.
package reconcile
