package logstore

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
)

const (
	// frameHeadBytes come before the records of a frame: checksum of the head
	// u32, checksum of the records u32, their length u32, number of the commit u64.
	// Frames begin at multiples of frameAlign.
	frameHeadBytes = 4 + 4 + 4 + 8
	frameAlign     = 8

	// sectorBytes is what a disk writes as a whole or not at all.
	sectorBytes = 512
)

func align(n, to int64) int64 { return (n + to - 1) / to * to }

// A site is where a frame is. It is part of the frame's checksum, so a frame that
// is read elsewhere is invalid.
type site struct {
	store   uint64
	segment uint32
	offset  int64
}

func (s site) checksum(head []byte) uint32 {
	var b [20]byte
	binary.LittleEndian.PutUint64(b[:], s.store)
	binary.LittleEndian.PutUint32(b[8:], s.segment)
	binary.LittleEndian.PutUint64(b[12:], uint64(s.offset))
	return crc32.Update(crc32.Checksum(b[:], castagnoli), castagnoli, head[4:frameHeadBytes])
}

// finishFrame fills the head of b, a frame for s whose records are behind room for
// it, and pads it with zeros to a multiple of frameAlign.
func finishFrame(b []byte, s site, commit uint64) []byte {
	records := b[frameHeadBytes:]
	binary.LittleEndian.PutUint32(b[4:], crc32.Checksum(records, castagnoli))
	binary.LittleEndian.PutUint32(b[8:], uint32(len(records)))
	binary.LittleEndian.PutUint64(b[12:], commit)
	binary.LittleEndian.PutUint32(b, s.checksum(b))
	return append(b, make([]byte, align(int64(len(b)), frameAlign)-int64(len(b)))...)
}

// A frame is what one commit wrote.
type frame struct {
	commit  uint64
	records []byte
	end     int64 // where the next one begins
}

// A frameHead is the head of a frame. Its checksum was right.
type frameHead struct {
	commit   uint64
	length   int64
	checksum uint32 // of the records
}

func parseHead(image []byte, s site) (frameHead, bool) {
	if int64(len(image))-s.offset < frameHeadBytes {
		return frameHead{}, false
	}
	head := image[s.offset : s.offset+frameHeadBytes]
	if binary.LittleEndian.Uint32(head) != s.checksum(head) {
		return frameHead{}, false
	}
	return frameHead{
		commit: binary.LittleEndian.Uint64(head[12:]), length: int64(binary.LittleEndian.Uint32(head[8:])),
		checksum: binary.LittleEndian.Uint32(head[4:]),
	}, true
}

// parseFrame reads the frame at s of image, a segment. It refers to image.
func parseFrame(image []byte, s site) (frame, bool) {
	h, ok := parseHead(image, s)
	begin := s.offset + frameHeadBytes
	if !ok || h.length > int64(len(image))-begin {
		return frame{}, false
	}
	records := image[begin : begin+h.length]
	if crc32.Checksum(records, castagnoli) != h.checksum {
		return frame{}, false
	}
	return frame{h.commit, records, align(begin+h.length, frameAlign)}, true
}

// torn reports whether the invalid frame at s can be what a crash left of the last
// commit, the one numbered commit. Before it was written, its bytes were zero on
// disk, and each sector was then written as a whole or not at all: so if all of the
// sectors hold something, all of them were written, and what is invalid was
// damaged later. And a commit begins only after the one before is on disk: so if a
// later one has begun, this one was acknowledged.
func torn(image []byte, s site, commit uint64) bool {
	size := int64(len(image))
	if zeros(image[s.offset:]) == size-s.offset {
		return true // nothing was written
	}
	end := min(align(s.offset+frameHeadBytes, sectorBytes), size)
	if h, ok := parseHead(image, s); ok {
		if h.commit != commit || h.length > size-s.offset-frameHeadBytes {
			return false
		}
		end = s.offset + frameHeadBytes + h.length
	}
	missing := false
	for begin := s.offset; begin < end && !missing; {
		next := min(align(begin+1, sectorBytes), end)
		missing = zeros(image[begin:next]) == next-begin
		begin = next
	}
	if !missing {
		return false
	}
	for at := s.offset + frameAlign; at <= size-frameHeadBytes; at += frameAlign {
		if binary.LittleEndian.Uint64(image[at:]) == 0 {
			continue // the checksums of a frame are both 0 once in 2^64
		}
		if h, ok := parseHead(image, site{s.store, s.segment, at}); ok && h.commit > commit {
			return false
		}
	}
	return true
}

var zeroPage [4096]byte

// zeros is how many of the first bytes of b are 0.
func zeros(b []byte) int64 {
	n := 0
	for len(b)-n >= len(zeroPage) && bytes.Equal(b[n:n+len(zeroPage)], zeroPage[:]) {
		n += len(zeroPage)
	}
	for n < len(b) && b[n] == 0 {
		n++
	}
	return int64(n)
}
