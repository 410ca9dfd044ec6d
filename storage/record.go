package storage

import (
	"encoding/binary"
	"hash/crc32"
)

// The layout of the log; docs/storage.md has it in full.
const (
	formatVersion = 1

	segmentHeaderSize = 64
	segmentMagic      = "meshkvW\n"
	nodeIDBytes       = 32 // padded with zeros

	recordHeaderSize = 24
	recordMagic      = 0xC5
	recordTrailer    = 0xEE
	maxRecordBytes   = 1 << 31 // of a payload

	sectorSize = 512 // what a disk writes as a whole, or not at all
)

// Kinds of records.
const (
	recordBatch = 1
	recordSeal  = 2 // the segment ends here and has a successor
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// A recordHeader precedes each payload:
//
//	magic u8 | kind u8 | 0 u16 | length u32 | seq u64 | payload crc u32 | header crc u32
type recordHeader struct {
	kind   byte
	length uint32
	seq    uint64
	crc    uint32
}

// size is of the whole record on disk.
func (h recordHeader) size() int64 { return recordHeaderSize + int64(h.length) + 1 }

func (h recordHeader) put(b []byte) {
	_ = b[recordHeaderSize-1]
	b[0], b[1], b[2], b[3] = recordMagic, h.kind, 0, 0
	binary.LittleEndian.PutUint32(b[4:], h.length)
	binary.LittleEndian.PutUint64(b[8:], h.seq)
	binary.LittleEndian.PutUint32(b[16:], h.crc)
	binary.LittleEndian.PutUint32(b[20:], checksum(b[:20]))
}

// parseRecordHeader reports whether b begins with a valid header.
func parseRecordHeader(b []byte) (h recordHeader, ok bool) {
	if len(b) < recordHeaderSize || b[0] != recordMagic || binary.LittleEndian.Uint32(b[20:]) != checksum(b[:20]) {
		return recordHeader{}, false
	}
	h = recordHeader{
		kind:   b[1],
		length: binary.LittleEndian.Uint32(b[4:]),
		seq:    binary.LittleEndian.Uint64(b[8:]),
		crc:    binary.LittleEndian.Uint32(b[16:]),
	}
	return h, h.length <= maxRecordBytes
}

// sealRecord completes b, which is room for a header followed by the payload, to
// a record.
func sealRecord(b []byte, kind byte, seq uint64) []byte {
	payload := b[recordHeaderSize:]
	mask(payload, seq)
	recordHeader{kind: kind, length: uint32(len(payload)), seq: seq, crc: checksum(payload)}.put(b)
	return append(b, recordTrailer)
}

// mask hides payload under a pattern of seq, and uncovers it again. Thereby no
// sector of a complete record is all zeros, whatever the values are, and a sector
// of zeros means that it was never written (see tornTail).
func mask(payload []byte, seq uint64) {
	x := seq + 0x9e3779b97f4a7c15 // the finalizer of splitmix64
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x^x>>27)*0x94d049bb133111eb | 0x0101010101010101
	for len(payload) >= 8 {
		binary.LittleEndian.PutUint64(payload, binary.LittleEndian.Uint64(payload)^x)
		payload = payload[8:]
	}
	for i := range payload {
		payload[i] ^= byte(x >> (8 * i))
	}
}

// tornTail decides whether rest, which begins at offset base of the log where a
// valid record was expected and runs to the end of the file, is what a crash
// left of the write of one record, never acknowledged. Otherwise it is damage,
// and reason says what.
//
// A crash may leave less than the record (a short file), or, after a power loss,
// any of its sectors unwritten, which read as zeros. A record that is all there
// with another content is no torn write. Nor is anything before a valid record,
// since a record is written only when the one before it is on disk.
func tornTail(rest []byte, base int64, seq uint64) (torn bool, reason string) {
	for i := 1; i+recordHeaderSize <= len(rest); i++ {
		if rest[i] != recordMagic {
			continue
		}
		if h, ok := parseRecordHeader(rest[i:]); ok && h.seq >= seq {
			return false, "a record that fails its checksum precedes a valid one"
		}
	}
	if len(rest) < recordHeaderSize {
		return true, ""
	}
	h, ok := parseRecordHeader(rest)
	switch {
	case !ok && hasZeroSector(rest, base, recordHeaderSize):
		return true, ""
	case !ok:
		return false, "record header fails its checksum"
	case h.seq != seq:
		return false, "record out of sequence"
	case h.size() > int64(len(rest)):
		return true, ""
	case hasZeroSector(rest[:h.size()], base, h.size()):
		return true, ""
	}
	return false, "record fails its checksum"
}

// hasZeroSector reports whether any sector that b, at offset base of the file,
// touches within its first n bytes holds only zeros in b.
func hasZeroSector(b []byte, base, n int64) bool {
	for at := int64(0); at < n; {
		end := min(at+sectorSize-(base+at)%sectorSize, int64(len(b)))
		zero := true
		for _, x := range b[at:end] {
			if x != 0 {
				zero = false
				break
			}
		}
		if zero {
			return true
		}
		at = end
	}
	return false
}

// segmentHeader begins each file of the log:
//
//	magic [8] | version u32 | 0 u32 | node id [32] | first seq u64 | 0 u32 | crc u32
type segmentHeader struct {
	version uint32
	nodeID  string
	first   uint64
}

func (h segmentHeader) bytes() []byte {
	b := make([]byte, segmentHeaderSize)
	copy(b, segmentMagic)
	binary.LittleEndian.PutUint32(b[8:], h.version)
	copy(b[16:16+nodeIDBytes], h.nodeID)
	binary.LittleEndian.PutUint64(b[48:], h.first)
	binary.LittleEndian.PutUint32(b[60:], checksum(b[:60]))
	return b
}

func parseSegmentHeader(b []byte) (h segmentHeader, ok bool) {
	if len(b) < segmentHeaderSize || string(b[:8]) != segmentMagic ||
		binary.LittleEndian.Uint32(b[60:]) != checksum(b[:60]) {
		return segmentHeader{}, false
	}
	id := b[16 : 16+nodeIDBytes]
	for len(id) > 0 && id[len(id)-1] == 0 {
		id = id[:len(id)-1]
	}
	return segmentHeader{
		version: binary.LittleEndian.Uint32(b[8:]),
		nodeID:  string(id),
		first:   binary.LittleEndian.Uint64(b[48:]),
	}, true
}
