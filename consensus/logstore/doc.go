// Package logstore keeps the Raft logs and the stable values (terms and votes) of
// all groups of a node.
//
// The promises:
//
//   - What a call acknowledged is on disk. A group that is opened again holds
//     exactly the entries and values that were acknowledged, and at most those of
//     one unanswered call more.
//   - A log has no holes: its entries are first..last, whatever was cut short.
//   - What is read was verified. A flipped bit makes Open or the read fail with
//     storage.ErrDamaged; it never yields another log, a shorter one, or an older
//     vote.
//   - After a failed write nothing is served any more (storage.ErrFailed): Raft
//     must not act on what may not be on disk.
//
// A Store is one bbolt file. One goroutine commits whatever all groups have asked
// for since the commit before, in one transaction and without a timer, so the
// groups of a node share their fsyncs; bbolt needs two for each transaction. A
// Group is the part of one Raft group: a raft.LogStore and a raft.StableStore.
//
// An Engine is a Store, or for comparison a raft-boltdb file for each group.
//
// The file has four buckets. Checksums are CRC-32C over the key and what follows
// them; integers are little-endian in values and big-endian in keys.
//
//	meta     "format" -> version u32; "next" -> checksum u32, number u32 of the
//	         next new group
//	groups   name -> checksum u32, version u8, number u32, first u64, last u64,
//	         then the stable values: key length u16, value length u32, key, value
//	logs     number u32, index u64 -> checksum u32, version u8, type u8, term u64,
//	         time of append i64 (unix ns, 0: none), length of the extensions u32,
//	         extensions, data
//	removed  number u32 of a group whose entries are being deleted -> nothing
//
// Numbers are never used twice, so a group that is made anew under the name of a
// removed one sees nothing of it.
package logstore
