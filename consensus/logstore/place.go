package logstore

import "slices"

// A place is where the stored value of an entry is: the number of the segment,
// and the bytes in its file. No place has length 0.
type place struct{ segment, offset, length uint32 }

// bytes is what an entry takes of its segment.
func (p place) bytes() int64 { return int64(p.length) + lengthBytes }

// places are those of the entries of a log, in their order.
type places []place

// cut takes away what is not in after, a part of held, and returns both.
func (p places) cut(held, after span) (kept, released places) {
	if after == (span{}) {
		return nil, p
	}
	front, end := after.first-held.first, after.last-held.first+1
	if front > 0 {
		released = p[:front]
	} else {
		released = p[end:]
	}
	kept = p[front:end]
	if len(released) > 0 {
		released = slices.Clone(released) // places that are appended may come over them
	}
	if int(front) > len(kept) || cap(kept) > 4*len(kept)+64 { // give memory back
		kept = slices.Clone(kept)
	}
	return kept, released
}
