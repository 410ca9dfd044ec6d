package logstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math"
	"slices"
)

const (
	maxNameBytes   = 255
	maxStableKeys  = 16
	maxStableKey   = 255
	maxStableValue = 1 << 10

	lengthBytes   = 4             // before a stored entry
	runHeadBytes  = 1 + 4 + 8 + 4 // of a record of entries
	pairHeadBytes = 2 + 4         // of a stable value
)

// A span is the indexes that a log holds: first to last, or none if both are 0.
type span struct{ first, last uint64 }

func (s span) contains(index uint64) bool { return index != 0 && s.first <= index && index <= s.last }

// within: o has all that s has.
func (s span) within(o span) bool {
	return s == span{} || o.contains(s.first) && o.contains(s.last)
}

func (s span) count() uint64 {
	if s == (span{}) {
		return 0
	}
	return s.last - s.first + 1
}

// valid: a span begins at 1 or later, and can be counted.
func (s span) valid() bool {
	return s == span{} || s.first > 0 && s.first <= s.last && s.last < math.MaxUint64
}

// A recordKind says what a record does.
type recordKind byte

const (
	recordState  recordKind = iota + 1 // all groups, as they are before the records that follow
	recordAdopt                        // a new group
	recordRetire                       // a group is removed
	recordAppend                       // entries behind the last one
	recordMove                         // entries again, whose older copies are about to be removed
	recordSpan                         // what a log holds after a deletion
	recordSet                          // a stable value
	recordSeal                         // the log goes on in the next segment
	recordClose                        // the store was closed
)

// A record is one change of the journal.
type record struct {
	kind   recordKind
	number uint32       // of the group; in a state that of the next new group, in a seal that of the next segment
	name   string       // of a new group
	held   span         // after a deletion
	first  uint64       // index of the first entry
	values [][]byte     // entries as they are stored, whose indexes follow each other
	key    string       // of a stable value
	value  []byte       // likewise
	groups []groupState // by ascending numbers
}

// A groupState is what is kept of a group, beside its entries.
type groupState struct {
	number uint32
	name   string
	held   span
	stable map[string][]byte
}

// appendRunHead begins a record of count entries, of which each is appended after its
// length.
func appendRunHead(b []byte, kind recordKind, number uint32, first uint64, count int) []byte {
	b = append(b, byte(kind))
	b = binary.LittleEndian.AppendUint32(b, number)
	b = binary.LittleEndian.AppendUint64(b, first)
	return binary.LittleEndian.AppendUint32(b, uint32(count))
}

func appendPair(b []byte, key string, value []byte) []byte {
	b = binary.LittleEndian.AppendUint16(b, uint16(len(key)))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(value)))
	return append(append(b, key...), value...)
}

func appendSpan(b []byte, s span) []byte {
	b = binary.LittleEndian.AppendUint64(b, s.first)
	return binary.LittleEndian.AppendUint64(b, s.last)
}

// appendRecord appends r to b.
func appendRecord(b []byte, r record) []byte {
	if r.kind == recordAppend || r.kind == recordMove {
		b = appendRunHead(b, r.kind, r.number, r.first, len(r.values))
		for _, v := range r.values {
			b = binary.LittleEndian.AppendUint32(b, uint32(len(v)))
			b = append(b, v...)
		}
		return b
	}
	b = append(b, byte(r.kind))
	b = binary.LittleEndian.AppendUint32(b, r.number)
	switch r.kind {
	case recordAdopt:
		b = append(append(b, byte(len(r.name))), r.name...)
	case recordSpan:
		b = appendSpan(b, r.held)
	case recordSet:
		b = appendPair(b, r.key, r.value)
	case recordState:
		b = binary.LittleEndian.AppendUint32(b, uint32(len(r.groups)))
		for _, g := range r.groups {
			b = binary.LittleEndian.AppendUint32(b, g.number)
			b = append(append(b, byte(len(g.name))), g.name...)
			b = appendSpan(b, g.held)
			b = append(b, byte(len(g.stable)))
			for _, k := range slices.Sorted(maps.Keys(g.stable)) {
				b = appendPair(b, k, g.stable[k])
			}
		}
	}
	return b
}

// parser takes values from the front of bytes. After one that is not there all
// others are zero, and short is set.
type parser struct {
	b     []byte
	short bool
}

func (p *parser) bytes(n uint64) []byte {
	if n > uint64(len(p.b)) {
		p.b, p.short = nil, true
		return nil
	}
	taken := p.b[:n:n]
	p.b = p.b[n:]
	return taken
}

func (p *parser) uint8() byte {
	if b := p.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (p *parser) uint16() uint16 {
	if b := p.bytes(2); b != nil {
		return binary.LittleEndian.Uint16(b)
	}
	return 0
}

func (p *parser) uint32() uint32 {
	if b := p.bytes(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (p *parser) uint64() uint64 {
	if b := p.bytes(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

func (p *parser) span() span { return span{p.uint64(), p.uint64()} }

func (p *parser) name() string { return string(p.bytes(uint64(p.uint8()))) }

func (p *parser) pair() (key string, value []byte, err error) {
	k, v := p.uint16(), p.uint32()
	if k > maxStableKey || v > maxStableValue {
		return "", nil, fmt.Errorf("stable key of %d bytes with %d", k, v)
	}
	return string(p.bytes(uint64(k))), slices.Clone(p.bytes(uint64(v))), nil
}

// parseRecord reads the first record of b and returns what is behind it. The record
// refers to b: its entries do. It checks that each value is in its bounds, not what
// it does to the groups.
func parseRecord(b []byte) (r record, rest []byte, err error) {
	p := &parser{b: b}
	r = record{kind: recordKind(p.uint8()), number: p.uint32()}
	switch r.kind {
	case recordAdopt:
		r.name = p.name()
	case recordSpan:
		if r.held = p.span(); !r.held.valid() {
			return r, nil, fmt.Errorf("entries %d to %d", r.held.first, r.held.last)
		}
	case recordSet:
		r.key, r.value, err = p.pair()
	case recordAppend, recordMove:
		err = p.run(&r)
	case recordState:
		err = p.state(&r)
	case recordRetire, recordSeal, recordClose:
	default:
		return r, nil, fmt.Errorf("record of kind %d", r.kind)
	}
	if err == nil && p.short {
		err = errors.New("record is cut off")
	}
	return r, p.b, err
}

func (p *parser) run(r *record) error {
	r.first = p.uint64()
	count := p.uint32()
	if uint64(count)*(lengthBytes+entryHeadBytes) > uint64(len(p.b)) {
		return fmt.Errorf("%d entries in %d bytes", count, len(p.b))
	}
	if count == 0 || !(span{r.first, r.first + uint64(count) - 1}).valid() {
		return fmt.Errorf("%d entries from %d on", count, r.first)
	}
	r.values = make([][]byte, count)
	for i := range r.values {
		n := p.uint32()
		if n < entryHeadBytes || n > maxEntryBytes {
			return fmt.Errorf("entry of %d bytes", n)
		}
		r.values[i] = p.bytes(uint64(n))
	}
	return nil
}

func (p *parser) state(r *record) error {
	count := p.uint32()
	if count > maxGroups {
		return fmt.Errorf("%d groups", count)
	}
	for range count {
		g := groupState{number: p.uint32(), name: p.name(), held: p.span()}
		keys := int(p.uint8())
		if !g.held.valid() || keys > maxStableKeys || g.number >= r.number ||
			len(r.groups) > 0 && g.number <= r.groups[len(r.groups)-1].number {
			return fmt.Errorf("group %d with %d stable keys and the entries %d to %d", g.number, keys, g.held.first, g.held.last)
		}
		g.stable = make(map[string][]byte, keys)
		for before := ""; keys > 0; keys-- {
			key, value, err := p.pair()
			if err == nil && len(g.stable) > 0 && key <= before {
				err = errors.New("stable keys out of order")
			}
			if err != nil {
				return err
			}
			g.stable[key], before = value, key
		}
		r.groups = append(r.groups, g)
	}
	return nil
}

// entries are the index and the place of each entry of r, which is at the given
// offset of a segment.
func (r record) entries(segment uint32, offset int64) iter.Seq2[uint64, place] {
	return func(yield func(uint64, place) bool) {
		offset += runHeadBytes
		for i, v := range r.values {
			offset += lengthBytes
			if !yield(r.first+uint64(i), place{segment, uint32(offset), uint32(len(v))}) {
				return
			}
			offset += int64(len(v))
		}
	}
}
