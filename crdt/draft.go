package crdt

import (
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
)

// Errors of a Draft. The draft must be given up when one is returned.
var (
	// ErrWrongType: the key, or the place in a map, is of another type.
	ErrWrongType = errors.New("wrong type")
	// ErrBatchSize: the batch is larger than one op may be.
	ErrBatchSize = errors.New("batch is too large")
	// ErrRange: a number beyond what a counter can hold.
	ErrRange = errors.New("number out of range")
	// ErrExists: a bounded counter is created once.
	ErrExists = errors.New("exists already")
	// ErrNotCreated: a bounded counter is changed that does not exist.
	ErrNotCreated = errors.New("does not exist")
)

// fewGone is how many removed cells a draft looks through one by one.
const fewGone = 16

// A Draft is a batch of changes before it is made. It sees what the replica holds and
// what was changed in the draft before. The replica stays as it is until Commit, and
// must not be changed meanwhile. Not safe for concurrent use.
type Draft struct {
	r     *Replica
	at    HLC
	sees  func(*Cell) bool
	seq   uint64             // the newest that was given
	added []*Cell            // ascending by dot
	gone  []*Cell            // held cells that are removed
	logs  map[string][]*Cell // the entries of logs that were trimmed, oldest first; forgotten with any other removal
	many  map[Dot]struct{}   // the same, once they are more than fewGone
	// newest is the newest visible held cell of a key, where that was not the top one.
	newest map[string]*Cell
	bytes  int // of added
}

// A Lifetime is what a cell has besides its value: as in Write.
type Lifetime struct {
	Flags   Flags
	Expires int64 // ms since the Unix epoch, or 0
}

// Draft begins a batch that is dated at. sees says whether a cell is visible now: hidden ones
// are removed like others, and do not decide what type a key has.
func (r *Replica) Draft(at HLC, sees func(*Cell) bool) *Draft {
	return &Draft{r: r, at: at, sees: sees, seq: r.seq}
}

// Commit makes the changes and returns the ops to be spread: one, or none if nothing changed.
func (r *Replica) Commit(d *Draft) []*Op {
	if d.r != r || d.seq < r.seq {
		panic("crdt: a draft of another state")
	}
	if len(d.added)+len(d.gone) == 0 {
		return nil
	}
	removes := make([]Dot, len(d.gone))
	for i, c := range d.gone {
		removes[i] = c.Dot
	}
	slices.SortFunc(removes, Dot.Compare)
	op := &Op{HLC: d.at, Removes: DotsOf(removes...)}
	first := r.seq + 1
	n := len(d.added)
	switch {
	case n == 0:
		op.Dot, op.Key = r.nextDot(), d.gone[0].Key
		for _, c := range d.gone {
			if c.Key != op.Key {
				op.Key = ""
				break
			}
		}
	case n == 1:
		op.Cell, op.Key = d.added[0], d.added[0].Key
		op.Dot = op.Cell.Dot
	default:
		op.Cell, op.More = d.added[n-1], d.added[:n-1:n-1]
		op.Dot = op.Cell.Dot
	}
	if op.Dot.Seq > first { // cells of the batch, or dots of such that came and went within it
		op.Covers = Dots{{r.inc, first, op.Dot.Seq - 1}}
	}
	r.seq = op.Dot.Seq
	r.Apply(op)
	return []*Op{op}
}

// Added is the cells that Commit will add, ascending by dot.
func (d *Draft) Added() iter.Seq[*Cell] { return slices.Values(d.added) }

// Removed is the held cells that Commit will remove, in no particular order.
func (d *Draft) Removed() iter.Seq[*Cell] { return slices.Values(d.gone) }

// Put makes a register of the key, as Replica.Put does.
func (d *Draft) Put(key string, value []byte, life Lifetime) error {
	if err := d.want(key, KindRegister); err != nil {
		return err
	}
	return d.replace(key, "", KindRegister, value, life)
}

// Delete removes every cell of the key, of whatever kind. ErrBatchSize if it has more than one op may
// remove.
func (d *Draft) Delete(key string) error {
	if len(key) == 0 || len(key) > MaxKeyBytes {
		return ErrKeySize
	}
	return d.removeAll(func(yield func(*Cell) bool) {
		for c := range d.under(key, "", 0) {
			if (d.isNew(c) || d.r.deletable(c)) && !yield(c) {
				return
			}
		}
	})
}

// want checks that key has the type kind, or none.
func (d *Draft) want(key string, kind Kind) error {
	if len(key) == 0 || len(key) > MaxKeyBytes {
		return ErrKeySize
	}
	if is := d.kindOf(key); is != 0 && is != kind {
		return fmt.Errorf("%w: the key is a %v, not a %v: delete it first", ErrWrongType, is, kind)
	}
	return nil
}

// kindOf is the kind of the newest visible cell of key, or 0.
func (d *Draft) kindOf(key string) Kind {
	for i := len(d.added) - 1; i >= 0; i-- {
		if d.added[i].Key == key {
			return d.added[i].Kind // newer than all that is held
		}
	}
	top := d.r.cells.Top(key)
	if newest := d.newest[key]; newest != nil {
		top = newest // found before: what is held only gets less
	}
	switch {
	case top == nil:
		return 0
	case d.holds(top) && d.sees(top):
		return top.Kind
	}
	var newest *Cell
	d.r.cells.Descend(key, func(c *Cell) bool {
		if d.holds(c) && d.sees(c) {
			newest = c
		}
		return newest == nil
	})
	if newest == nil {
		return 0
	}
	if d.newest == nil {
		d.newest = make(map[string]*Cell)
	}
	d.newest[key] = newest
	return newest.Kind
}

// holds reports whether a cell of the replica is not removed.
func (d *Draft) holds(c *Cell) bool {
	if d.many != nil {
		_, gone := d.many[c.Dot]
		return !gone
	}
	return !slices.ContainsFunc(d.gone, func(g *Cell) bool { return g.Dot == c.Dot })
}

// place is the cells at path of key of one kind.
func (d *Draft) place(key, path string, kind Kind) (cells []*Cell) {
	for _, c := range d.r.cells.ByPath(key, path) {
		if c.Kind == kind && d.holds(c) {
			cells = append(cells, c)
		}
	}
	for _, c := range d.added {
		if c.Key == key && c.Path == path && c.Kind == kind {
			cells = append(cells, c)
		}
	}
	return cells
}

// under is the cells whose path begins with path, of one kind, or of all if that is 0: those that are held
// by path, and then those that were added.
func (d *Draft) under(key, path string, kind Kind) iter.Seq[*Cell] {
	return func(yield func(*Cell) bool) {
		for c := range d.r.cells.Ascend(key, path) {
			if !strings.HasPrefix(c.Path, path) {
				break
			}
			if d.holds(c) && (kind == 0 || c.Kind == kind) && !yield(c) {
				return
			}
		}
		for _, c := range d.added {
			if c.Key == key && strings.HasPrefix(c.Path, path) && (kind == 0 || c.Kind == kind) && !yield(c) {
				return
			}
		}
	}
}

// replace removes what is at path of key and of that kind, and adds a cell there.
func (d *Draft) replace(key, path string, kind Kind, value []byte, life Lifetime) error {
	for _, c := range d.place(key, path, kind) {
		if err := d.remove(c); err != nil {
			return err
		}
	}
	return d.add(Cell{Key: key, Path: path, Kind: kind, Flags: life.Flags, Expires: life.Expires, Value: value})
}

// isNew reports whether a cell was added in the draft.
func (d *Draft) isNew(c *Cell) bool { return c.Dot.Inc == d.r.inc && c.Dot.Seq > d.r.seq }

// next is the dot of the cell that is added next.
func (d *Draft) next() Dot { return Dot{d.r.inc, d.seq + 1} }

func (d *Draft) add(c Cell) error {
	switch {
	case len(c.Path) > MaxKeyBytes:
		return ErrPathSize
	case len(c.Value) > MaxValueBytes:
		return fmt.Errorf("%w: %d bytes, at most %d", ErrValueSize, len(c.Value), MaxValueBytes)
	}
	d.bytes += len(c.Key) + len(c.Path) + len(c.Value)
	if len(d.added) == MaxBatchCells || d.seq-d.r.seq == MaxCovers || len(d.added) > 0 && d.bytes > MaxBatchBytes {
		return fmt.Errorf("%w: at most %d elements and %d bytes: split it", ErrBatchSize, MaxBatchCells, MaxBatchBytes)
	}
	c.Dot, c.HLC = d.next(), d.at
	d.seq++
	d.added = append(d.added, c.pack())
	return nil
}

// remove takes out a cell that the draft sees.
func (d *Draft) remove(c *Cell) error {
	delete(d.logs, c.Key)
	if d.isNew(c) {
		for i, a := range d.added {
			if a == c {
				d.added = append(d.added[:i:i], d.added[i+1:]...)
				d.bytes -= len(c.Key) + len(c.Path) + len(c.Value)
				break
			}
		}
		return nil
	}
	if len(d.gone) == MaxRemoves {
		return fmt.Errorf("%w: it removes more than %d cells: split it", ErrBatchSize, MaxRemoves)
	}
	if d.gone = append(d.gone, c); d.many != nil {
		d.many[c.Dot] = struct{}{}
	} else if len(d.gone) > fewGone {
		d.many = make(map[Dot]struct{}, 2*fewGone)
		for _, g := range d.gone {
			d.many[g.Dot] = struct{}{}
		}
	}
	return nil
}

// removeAll takes out cells that the draft sees.
func (d *Draft) removeAll(cells iter.Seq[*Cell]) error {
	var all []*Cell // removing changes what is iterated over
	for c := range cells {
		if all = append(all, c); len(all) > MaxRemoves+MaxBatchCells {
			return fmt.Errorf("%w: it removes more than %d cells: split it", ErrBatchSize, MaxRemoves)
		}
	}
	for _, c := range all {
		if err := d.remove(c); err != nil {
			return err
		}
	}
	return nil
}

// newestOf is the highest of cells, or nil.
func newestOf(cells []*Cell) (newest *Cell) {
	for _, c := range cells {
		if newest == nil || c.Compare(newest) > 0 {
			newest = c
		}
	}
	return newest
}
