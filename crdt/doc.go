// Package crdt is the data model of an eventual keyspace: cells that are named
// by dots, the clock of dots that a replica knows, and the three rules that may
// change a replica: Apply, Coalesce and the end of a reconciliation session.
//
// The promises that the rules keep:
//
//   - No lost update: a cell disappears only because an op removed its dot, and
//     an op removes only dots that its writer held.
//   - No resurrection: a dot that is in the clock and not among the live cells
//     never comes back, so there are no tombstones and no timers.
//   - Convergence: equal clocks imply equal pending deaths and equal live cells
//     within the clock.
//
// Everything here is pure: no I/O, no goroutines, no time and no randomness.
// Nothing is safe for concurrent use; the owner of a Replica serialises access.
//
// Sources: dots and dotted version vectors, Preguiça et al. 2010, "Dotted
// Version Vectors: Logical Clocks for Optimistic Replication"; add-wins sets
// without tombstones, Bieniusa et al. 2012, "An Optimized Conflict-free
// Replicated Set"; hybrid logical clocks, Kulkarni et al. 2014, "Logical
// Physical Clocks and Consistent Snapshots in Globally Distributed Databases".
package crdt
