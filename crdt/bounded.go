package crdt

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math"
	"slices"
)

// The paths of a bounded counter's cells.
const (
	boundPath = "b" // the lower bound
	rowPath   = "r" // and 24 bytes, the dot of the creation and the actor: its row
)

// MaxRows bounds how many incarnations change one bounded counter, and to how many one of them gives rights.
const MaxRows = 1024

// A RightsError: a bounded counter may be above its bound, but this incarnation has no right to take so much of it.
type RightsError struct {
	Have, Need uint64
}

// Error implements error.
func (e *RightsError) Error() string {
	return fmt.Sprintf("%d needed, and this node has the right to take %d: let another one transfer some", e.Need, e.Have)
}

// ErrBehind: this node has joined the keyspace again and lacks what it wrote before.
var ErrBehind = errors.New("this node does not know yet what it wrote before it left: retry when it is synced")

// A row is what one actor did with a bounded counter: what it added and took, and the rights that it gave to
// others. All of it only grows.
type row struct {
	plus, minus uint64
	given       map[Inc]uint64
}

// rowAt is the path of an actor's row. A row counts for the creation that it names, and for no other: after a Delete
// nothing of before is left.
func rowAt(created Dot, actor Inc) string {
	b := []byte(actorPath(rowPath, created.Inc))
	b = binary.BigEndian.AppendUint64(b, created.Seq)
	return string(binary.BigEndian.AppendUint64(b, uint64(actor)))
}

// rowOf is the inverse of rowAt.
func rowOf(path string) (created Dot, actor Inc, ok bool) {
	if len(path) != len(rowPath)+24 || path[:len(rowPath)] != rowPath {
		return Dot{}, 0, false
	}
	v := varints{[]byte(path[len(rowPath):])}
	return Dot{v.inc(), v.fixed()}, v.inc(), true
}

func (w row) encode() []byte {
	b := binary.AppendUvarint(binary.AppendUvarint(nil, w.plus), w.minus)
	for _, to := range slices.Sorted(maps.Keys(w.given)) {
		b = binary.AppendUvarint(binary.BigEndian.AppendUint64(b, uint64(to)), w.given[to])
	}
	return b
}

// merge takes over what is further in a row of the same actor.
func (w *row) merge(b []byte) {
	v := varints{b}
	w.plus, w.minus = max(w.plus, v.next()), max(w.minus, v.next())
	if w.given == nil {
		w.given = make(map[Inc]uint64)
	}
	for len(v.b) > 0 {
		to := v.inc()
		w.given[to] = max(w.given[to], v.next())
	}
}

// deletable reports whether a Delete may remove a cell. A row without its counter must stay until it is known that this is
// deleted: if it comes later, the actor would have forgotten what it took.
func (r *Replica) deletable(c *Cell) bool {
	if c.Kind != KindBounded {
		return true
	}
	created, _, ok := rowOf(c.Path)
	return !ok || r.cells.ByDot(created) != nil || r.clock.Contains(created) || r.IsPending(created)
}

// Bounded is a bounded counter: Value is never below Bound, wherever it is looked at.
type Bounded struct {
	Value, Bound int64
	Rights       map[Inc]uint64 // how much each incarnation may take
}

// A bounded counter: the value is the bound and what all rows added beyond what they took. An actor takes no more than it has
// rights for: those that it made by adding, and those that others gave to it, less what it took and gave. What it
// has not heard of only makes them fewer. So the sum over all rows is not negative, whatever is lost or late.
// (Balegas et al. 2015, "Extending Eventually Consistent Cloud Databases for Enforcing Numeric Invariants".)
type bounded struct {
	created *Cell // nil: it does not exist
	rows    map[Inc]row
}

// boundedOf is made of cells in any order, which are gone through twice.
func boundedOf(cells iter.Seq[*Cell]) bounded {
	b := bounded{rows: make(map[Inc]row)}
	for c := range cells {
		if c.Kind == KindBounded && c.Path == boundPath && (b.created == nil || c.Compare(b.created) > 0) {
			b.created = c
		}
	}
	if b.created == nil {
		return b
	}
	for c := range cells {
		if c.Kind != KindBounded {
			continue
		}
		if created, actor, ok := rowOf(c.Path); ok && created == b.created.Dot {
			w := b.rows[actor]
			w.merge(c.Value)
			b.rows[actor] = w
		}
	}
	return b
}

func (b *bounded) bound() int64 {
	v, _ := binary.Varint(b.created.Value)
	return v
}

// rights is what inc may take.
func (b *bounded) rights(inc Inc) uint64 {
	w := b.rows[inc]
	have, spent := w.plus, w.minus
	for _, n := range w.given {
		if spent += n; spent < n {
			return 0 // more than can be counted
		}
	}
	for _, other := range b.rows {
		n := other.given[inc]
		if have += n; have < n {
			have = math.MaxUint64
			break
		}
	}
	return have - min(have, spent)
}

// BoundedCreate makes a bounded counter that never falls below bound, with the value initial, of which this
// incarnation may take all that is above the bound. ErrExists if there is one. Where two are created
// concurrently, the newest is the one that is, and what was done with the other does not count.
func (d *Draft) BoundedCreate(key string, bound, initial int64) error {
	if err := d.want(key, KindBounded); err != nil {
		return err
	}
	if initial < bound {
		return fmt.Errorf("%w: the value %d is below the bound %d", ErrRange, initial, bound)
	}
	if b := boundedOf(d.under(key, "", KindBounded)); b.created != nil {
		return fmt.Errorf("%w: delete it first", ErrExists)
	}
	if err := d.Delete(key); err != nil { // rows of one that was deleted
		return err
	}
	created, w := d.next(), row{plus: uint64(initial) - uint64(bound)}
	if err := d.add(Cell{Key: key, Path: boundPath, Kind: KindBounded, Value: binary.AppendVarint(nil, bound)}); err != nil {
		return err
	}
	return d.add(Cell{Key: key, Path: rowAt(created, d.r.inc), Kind: KindBounded, Value: w.encode()})
}

// BoundedAdd adds delta to a bounded counter. To take, delta < 0, needs rights: *RightsError if this incarnation has not as
// many. ErrNotCreated if there is no such counter.
func (d *Draft) BoundedAdd(key string, delta int64) error {
	return d.changeRow(key, func(b *bounded, w *row) error {
		if delta < 0 {
			need := -uint64(delta)
			if have := b.rights(d.r.inc); have < need {
				return &RightsError{have, need}
			}
			w.minus += need
			return nil
		}
		if v, ok := b.value(); !ok || v > math.MaxInt64-delta || w.plus+uint64(delta) < w.plus {
			return fmt.Errorf("%w: the value of a bounded counter", ErrRange)
		}
		w.plus += uint64(delta)
		return nil
	})
}

// BoundedTransfer gives n of this incarnation's rights to another. Errors as of BoundedAdd.
func (d *Draft) BoundedTransfer(key string, to Inc, n uint64) error {
	return d.changeRow(key, func(b *bounded, w *row) error {
		if to == d.r.inc || to == 0 {
			return fmt.Errorf("%w: rights are given to another node", ErrRange)
		}
		if have := b.rights(d.r.inc); have < n {
			return &RightsError{have, n}
		}
		if _, ok := w.given[to]; !ok && len(w.given) == MaxRows {
			return fmt.Errorf("%w: rights are given to at most %d others", ErrRange, MaxRows)
		}
		w.given[to] += n
		return nil
	})
}

func (d *Draft) changeRow(key string, change func(*bounded, *row) error) error {
	if err := d.want(key, KindBounded); err != nil {
		return err
	}
	b := boundedOf(d.under(key, "", KindBounded))
	if b.created == nil {
		return fmt.Errorf("bounded counter: %w: create it first", ErrNotCreated)
	}
	if d.r.clock.Entry(d.r.inc).Prefix < d.r.since {
		return ErrBehind
	}
	w, ok := b.rows[d.r.inc]
	if !ok && len(b.rows) >= MaxRows {
		return fmt.Errorf("%w: a bounded counter is changed by at most %d starts of nodes: delete it and create it anew", ErrRange, MaxRows)
	}
	if w.given == nil {
		w.given = make(map[Inc]uint64)
	}
	if err := change(&b, &w); err != nil {
		return err
	}
	return d.replace(key, rowAt(b.created.Dot, d.r.inc), KindBounded, w.encode(), Lifetime{})
}

// value is not ok if it is no int64.
func (b *bounded) value() (v int64, ok bool) {
	var plus, minus uint64
	for _, w := range b.rows {
		if plus+w.plus < plus {
			return 0, false
		}
		plus, minus = plus+w.plus, minus+w.minus
	}
	above, bound := plus-min(plus, minus), b.bound()
	if above > uint64(math.MaxInt64)-uint64(bound) { // as unsigned numbers: right for a negative bound, too
		return 0, false
	}
	return bound + int64(above), true
}

// BoundedValue is the bounded counter with these cells. Not ok: there is none. ErrRange if its value is no int64.
func BoundedValue(cells iter.Seq[*Cell]) (out Bounded, ok bool, err error) {
	b := boundedOf(cells)
	if b.created == nil {
		return Bounded{}, false, nil
	}
	out = Bounded{Bound: b.bound(), Rights: make(map[Inc]uint64)}
	if out.Value, ok = b.value(); !ok {
		return Bounded{}, false, fmt.Errorf("%w: the value of a bounded counter", ErrRange)
	}
	rights := func(inc Inc) {
		if _, done := out.Rights[inc]; !done {
			out.Rights[inc] = b.rights(inc)
		}
	}
	for inc, w := range b.rows {
		rights(inc)
		for to := range w.given {
			rights(to)
		}
	}
	return out, true, nil
}
