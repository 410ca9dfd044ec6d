package logstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
)

const (
	recordVersion   = 1
	recordHeadBytes = 1 + 4 + 8 + 8
	pairHeadBytes   = 2 + 4

	maxNameBytes   = 255
	maxStableKeys  = 64
	maxStableKey   = 255
	maxStableValue = 64 << 10
)

// A span is the indexes that a log holds: first to last, or none if both are 0.
type span struct{ first, last uint64 }

func (s span) contains(index uint64) bool { return index != 0 && s.first <= index && index <= s.last }

// both is what s and o have in common.
func (s span) both(o span) span {
	b := span{max(s.first, o.first), min(s.last, o.last)}
	if s == (span{}) || o == (span{}) || b.first > b.last {
		return span{}
	}
	return b
}

// valid: a span begins at 1 or later, and can be counted.
func (s span) valid() bool {
	return s == span{} || s.first > 0 && s.first <= s.last && s.last < math.MaxUint64
}

// A record is what the file says of a group as a whole. That its stable values
// are in it, and the span of its log, makes a missing one known.
type record struct {
	number uint32
	held   span
	stable map[string][]byte
}

// appendRecord appends the stored value of the group called name to b.
func appendRecord(b []byte, name string, r record) []byte {
	start := len(b)
	b = append(b, 0, 0, 0, 0, recordVersion)
	b = binary.LittleEndian.AppendUint32(b, r.number)
	b = binary.LittleEndian.AppendUint64(b, r.held.first)
	b = binary.LittleEndian.AppendUint64(b, r.held.last)
	for _, k := range slices.Sorted(maps.Keys(r.stable)) {
		v := r.stable[k]
		b = binary.LittleEndian.AppendUint16(b, uint16(len(k)))
		b = binary.LittleEndian.AppendUint32(b, uint32(len(v)))
		b = append(append(b, k...), v...)
	}
	binary.LittleEndian.PutUint32(b[start:], checksum([]byte(name), b[start+checksumBytes:]))
	return b
}

// decodeRecord reads the record of the group called name. It keeps nothing of
// value.
func decodeRecord(name string, value []byte) (record, error) {
	body, ok := unstamp([]byte(name), value)
	if !ok {
		return record{}, errors.New("fails its checksum")
	}
	if len(body) < recordHeadBytes {
		return record{}, fmt.Errorf("of %d bytes", len(value))
	}
	if body[0] != recordVersion {
		return record{}, fmt.Errorf("of version %d, known is %d", body[0], recordVersion)
	}
	r := record{
		number: binary.LittleEndian.Uint32(body[1:]),
		held:   span{binary.LittleEndian.Uint64(body[5:]), binary.LittleEndian.Uint64(body[13:])},
		stable: make(map[string][]byte),
	}
	if !r.held.valid() {
		return record{}, fmt.Errorf("with the entries %d to %d", r.held.first, r.held.last)
	}
	for rest := body[recordHeadBytes:]; len(rest) > 0; {
		if len(rest) < pairHeadBytes || len(r.stable) == maxStableKeys {
			return record{}, errors.New("with malformed values")
		}
		k, v := int(binary.LittleEndian.Uint16(rest)), uint64(binary.LittleEndian.Uint32(rest[2:]))
		if rest = rest[pairHeadBytes:]; uint64(k)+v > uint64(len(rest)) {
			return record{}, errors.New("with a value that is cut off")
		}
		key := string(rest[:k])
		if _, twice := r.stable[key]; twice {
			return record{}, errors.New("with a value twice")
		}
		r.stable[key] = slices.Clone(rest[k : uint64(k)+v])
		rest = rest[uint64(k)+v:]
	}
	return r, nil
}
