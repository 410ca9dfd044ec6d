package crdt

import (
	"errors"
	"iter"
)

// ErrElement: an element of a set, or a field of a map, is empty or too long.
var ErrElement = errors.New("an element has 1 to 1024 bytes")

// SetAdd adds an element to an add-wins set: it stays unless a remove has seen it. An element that
// is there is added anew, so that a concurrent remove of the former does not take it out.
// (Bieniusa et al. 2012, "An Optimized Conflict-free Replicated Set".)
func (d *Draft) SetAdd(key, element string, life Lifetime) error {
	if err := d.want(key, KindSet); err != nil {
		return err
	}
	if len(element) == 0 || len(element) > MaxKeyBytes {
		return ErrElement
	}
	return d.replace(key, element, KindSet, nil, life)
}

// SetRemove removes an element as it is seen here, and reports whether it was there.
func (d *Draft) SetRemove(key, element string) (removed bool, err error) {
	if err := d.want(key, KindSet); err != nil {
		return false, err
	}
	if len(element) == 0 || len(element) > MaxKeyBytes {
		return false, ErrElement
	}
	for _, c := range d.place(key, element, KindSet) {
		removed = removed || d.sees(c)
		if err := d.remove(c); err != nil {
			return false, err
		}
	}
	return removed, nil
}

// Elements is, of cells that come ascending by ComparePaths, the newest of each path: the elements of a set.
func Elements(cells iter.Seq[*Cell]) iter.Seq[*Cell] {
	return func(yield func(*Cell) bool) {
		var newest *Cell
		for c := range cells {
			switch {
			case newest == nil:
			case newest.Path != c.Path:
				if !yield(newest) {
					return
				}
			case newest.Compare(c) > 0:
				continue
			}
			newest = c
		}
		if newest != nil {
			yield(newest)
		}
	}
}
