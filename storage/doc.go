// Package storage keeps the live cells, the clock and the pending deaths of
// every keyspace of one node, and brings them back after a stop or a crash.
//
// The promises:
//
//   - A Batch is atomic: after any crash it is there as a whole or not at all.
//   - What Commit acknowledged is on disk, and Load finds it.
//   - What Load returns was verified. A flipped bit, a missing file or a file of
//     another node makes Load fail with ErrDamaged; nothing is served from a store
//     that is in doubt, and never a clock without its cells.
//
// A Store is one of two implementations that pass the suite in storagetest: the
// one in memory, and the one on disk, which is an append-only log of batches
// (fsynced before a commit returns) in front of a bbolt file of cells, to which a
// background checkpoint moves what the log holds. docs/storage.md specifies the
// files; docs/adr/0001-op-log-in-front-of-bbolt.md says why.
//
// A Writer stands before a Store and turns the small changes of many keyspaces
// into few commits.
package storage
