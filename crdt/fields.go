package crdt

import (
	"fmt"
	"iter"
	"slices"
	"strings"
)

// Bounds of a place in a map.
const (
	MaxDepth      = 8
	MaxFieldBytes = 255
)

// FieldPath is the path of the place in a map to which fields lead: each with its length in one byte
// before it. So the path of a place is a prefix of those of all places beneath, and of no others.
func FieldPath(fields ...string) (string, error) {
	if len(fields) == 0 || len(fields) > MaxDepth {
		return "", fmt.Errorf("%w: a place in a map is 1 to %d fields deep, this one is %d", ErrElement, MaxDepth, len(fields))
	}
	var b strings.Builder
	for _, f := range fields {
		if len(f) == 0 || len(f) > MaxFieldBytes {
			return "", fmt.Errorf("%w: a field has 1 to %d bytes, this one has %d", ErrElement, MaxFieldBytes, len(f))
		}
		b.WriteByte(byte(len(f)))
		b.WriteString(f)
	}
	if b.Len() > MaxKeyBytes {
		return "", fmt.Errorf("%w: the fields of a place have at most %d bytes in all", ErrElement, MaxKeyBytes-MaxDepth)
	}
	return b.String(), nil
}

// FieldsOf is the inverse of FieldPath. Nil if path is none.
func FieldsOf(path string) (fields []string) {
	for len(path) > 0 {
		n := int(path[0])
		if n == 0 || len(path) <= n || len(fields) == MaxDepth {
			return nil
		}
		fields = append(fields, path[1:1+n])
		path = path[1+n:]
	}
	return fields
}

// MapPut puts a register at a place of a map, field-wise add-wins: it stays unless a removal of the
// place, or of one above, has seen it. What is seen beneath the place is removed. ErrWrongType if there is a
// register above it.
func (d *Draft) MapPut(key string, fields []string, value []byte, life Lifetime) error {
	if err := d.want(key, KindMap); err != nil {
		return err
	}
	path, err := FieldPath(fields...)
	if err != nil {
		return err
	}
	above := 0
	for i, f := range fields[:len(fields)-1] {
		above += 1 + len(f)
		if slices.ContainsFunc(d.place(key, path[:above], KindMap), d.sees) && !d.isMap(key, path[:above]) {
			return fmt.Errorf("%w: %q is a value, not a map: remove it first", ErrWrongType, fields[:i+1])
		}
	}
	if err := d.removeAll(d.under(key, path, KindMap)); err != nil {
		return err
	}
	return d.add(Cell{Key: key, Path: path, Kind: KindMap, Flags: life.Flags, Expires: life.Expires, Value: value})
}

// MapRemove removes what is seen here at a place of a map and beneath, and reports whether there was something.
func (d *Draft) MapRemove(key string, fields []string) (removed bool, err error) {
	if err := d.want(key, KindMap); err != nil {
		return false, err
	}
	path, err := FieldPath(fields...)
	if err != nil {
		return false, err
	}
	for c := range d.under(key, path, KindMap) {
		if removed = d.sees(c); removed {
			break
		}
	}
	return removed, d.removeAll(d.under(key, path, KindMap))
}

// isMap reports whether the place shows a map: something beneath it that is newer than what is there.
func (d *Draft) isMap(key, path string) bool {
	var there, beneath *Cell
	for c := range d.under(key, path, KindMap) {
		which := &beneath
		if c.Path == path {
			which = &there
		}
		if d.sees(c) && (*which == nil || c.Compare(*which) > 0) {
			*which = c
		}
	}
	return beneath != nil && (there == nil || beneath.Compare(there) > 0)
}

// Fields is, of cells of a map that come ascending by ComparePaths, those that are shown: the newest of
// each path; and where concurrent puts made a place both a value and a map, either the value or what
// is beneath, whatever has the newest cell.
func Fields(cells iter.Seq[*Cell]) iter.Seq[*Cell] {
	return func(yield func(*Cell) bool) {
		// A value whose place may turn out to be a map, and what came beneath it since: nearly always nothing.
		var held []*Cell
		for c := range Elements(cells) {
			if len(held) > 0 && !strings.HasPrefix(c.Path, held[0].Path) {
				if !yieldFields(held, yield) {
					return
				}
				held = held[:0]
			}
			held = append(held, c)
		}
		yieldFields(held, yield)
	}
}

// yieldFields is Fields of cells all of which are at or beneath the first one, each of another path.
func yieldFields(held []*Cell, yield func(*Cell) bool) bool {
	for len(held) > 0 {
		n := 1 // the first one, and what is beneath it
		newest := held[0]
		for n < len(held) && strings.HasPrefix(held[n].Path, held[0].Path) {
			if held[n].Compare(newest) > 0 {
				newest = held[n]
			}
			n++
		}
		if newest == held[0] {
			if !yield(held[0]) {
				return false
			}
		} else if !yieldFields(held[1:n], yield) {
			return false
		}
		held = held[n:]
	}
	return true
}
