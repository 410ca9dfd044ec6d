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
//     vote. What is excepted is below.
//   - After a failed write nothing is served any more (storage.ErrFailed): Raft
//     must not act on what may not be on disk.
//
// A Store is one journal. One caller at a time commits whatever all groups have
// asked for since the commit before, in one write and one fsync and without a timer,
// so the groups of a node share their fsyncs. Where each entry is, is kept in memory
// (12 bytes for one). A Group is the part of one Raft group: a raft.LogStore and a
// raft.StableStore.
//
// An Engine is a Store, or for comparison a raft-boltdb file for each group.
//
// # Files
//
// The journal is a directory of segments, whose names are consecutive numbers. A
// segment is made in its full size, filled with zeros and synced, before it is used;
// the next one is made when half of it is used. They have 16 MiB, the first ones of a
// store 1 and 4 MiB; larger ones are made where a commit needs them. Integers are little-endian, checksums
// are CRC-32C.
//
//	segment  magic, format version u32, number u32, store u64, size u64, checksum
//	         u32; from byte 4096 on the frames, at multiples of 8
//	frame    what one commit wrote: checksum of the head u32, of the records u32,
//	         their length u32, number of the commit u64, then the records. The
//	         head's checksum is also over the store (a random number), the segment
//	         and the offset
//	record   kind u8, number of the group u32, then by kind:
//	  state   number of the next new group (for that of the group), count u32; for each
//	          group: number u32, name, first u64, last u64, count u8 of stable values
//	  adopt   name: length u8, bytes
//	  retire  nothing
//	  append  index u64 of the first, count u32; for each entry: length u32, value
//	  move    the same: entries that are there already, copied
//	  span    first u64, last u64: what is left of the log
//	  set     stable value: length of the key u16, of the value u32, key, value
//	  seal    number of the next segment (for that of the group)
//	  close   nothing
//	value    of an entry: checksum u32, version u8, type u8, term u64, time of append
//	         i64 (unix ns, 0: none), length of the extensions u32, extensions, data.
//	         The checksum is also over the number of the group and the index
//
// The first record of a segment, and no other, is a state: the groups as they were.
// A segment that goes on in the next ends with a seal, synced before the next is
// used, so a missing file is known, and so is one too many. Numbers of groups are
// never used twice: a group that is made anew under the name of a removed one sees
// nothing of it.
//
// # Space
//
// The oldest segment is removed when all its entries are deleted; the next one begins
// with the state, so nothing else is lost with it. When the segments before the
// current one take more than 32 MiB and more than twice what is live in them, the
// entries that are live in the oldest are copied to the end of the journal, 256 KiB
// in a commit, and it is removed. With the current segment and the one that is made
// ahead, the files take at most 64 MiB, or 32 MiB more than twice what is live, and
// what is appended while a segment is copied.
//
// # After a crash
//
// A commit begins when the one before is on disk. So only the last one can be torn:
// an invalid frame before a valid one was damaged. Where the last one was written
// there were zeros, and a disk writes sectors of 512 bytes as a whole: an invalid
// frame with something in each of its sectors was damaged too, for example any that
// lies in one sector. Else it is cut off. Closing the store adds a commit, so that
// its last real one is not the last.
//
// What cannot be told apart: a last commit of which whole sectors are zeros, lost by
// the disk after it was acknowledged or written as zeros, when another bit of it
// flips; and any number of commits at the very end that are replaced by zeros as a
// whole.
package logstore
