package crdt

import (
	"cmp"
	"maps"
	"slices"
)

// An Interval is the sequence numbers from Lo to Hi, both included.
type Interval struct{ Lo, Hi uint64 }

// An Entry is what a clock knows of one incarnation: every seq in 1..Prefix,
// and the Islands above it, which are ascending, disjoint and not adjacent to
// one another or to the prefix (Islands[0].Lo > Prefix+1).
type Entry struct {
	Prefix  uint64
	Islands []Interval
	// Closed: the incarnation writes no more (it left, was superseded by the
	// node's next one, or was reaped), so its ephemeral cells are hidden for
	// ever. A bit that only rises, merged with the clock, and not an event.
	Closed bool
	// Sealed: all unclosed members have agreed on these dots, which are all that
	// there will be. Only a closed entry is sealed, and none of its dots is
	// pending. A bit like Closed.
	Sealed bool
}

// Contains reports whether seq is known. Zero is not a sequence number.
func (e Entry) Contains(seq uint64) bool {
	if seq <= e.Prefix {
		return seq > 0
	}
	i := e.search(seq)
	return i < len(e.Islands) && e.Islands[i].Lo <= seq
}

// search is the index of the first island that ends at seq or above.
func (e Entry) search(seq uint64) int {
	i, _ := slices.BinarySearchFunc(e.Islands, seq, func(iv Interval, seq uint64) int {
		return cmp.Compare(iv.Hi, seq)
	})
	return i
}

// Max is the highest seq known, or 0.
func (e Entry) Max() uint64 {
	if n := len(e.Islands); n > 0 {
		return e.Islands[n-1].Hi
	}
	return e.Prefix
}

// Dots are the dots that are known, as those of inc.
func (e Entry) Dots(inc Inc) Dots {
	var s Dots
	if inc == horizonInc {
		return nil
	}
	if e.Prefix > 0 {
		s = append(s, Span{inc, 1, e.Prefix})
	}
	for _, is := range e.Islands {
		s = append(s, Span{inc, is.Lo, is.Hi})
	}
	return s
}

// empty reports whether nothing is known.
func (e Entry) empty() bool { return e.Prefix == 0 && len(e.Islands) == 0 && !e.Closed && !e.Sealed }

// Equal reports whether both know the same.
func (e Entry) Equal(other Entry) bool {
	return e.Prefix == other.Prefix && e.Closed == other.Closed && e.Sealed == other.Sealed && slices.Equal(e.Islands, other.Islands)
}

// Covers reports whether every seq of iv is known.
func (e Entry) Covers(iv Interval) bool {
	if iv.Hi <= e.Prefix {
		return true
	}
	lo := max(iv.Lo, e.Prefix+1)
	i := e.search(lo)
	return i < len(e.Islands) && e.Islands[i].Lo <= lo && iv.Hi <= e.Islands[i].Hi
}

// with is the entry with iv known. The islands of e are left untouched, so
// entries may be shared between a clock and its clones.
func (e Entry) with(iv Interval) Entry {
	if iv.Lo-1 <= e.Prefix {
		e.Prefix = max(e.Prefix, iv.Hi)
		drop := 0
		for drop < len(e.Islands) && e.Islands[drop].Lo-1 <= e.Prefix {
			e.Prefix = max(e.Prefix, e.Islands[drop].Hi)
			drop++
		}
		e.Islands = e.Islands[drop:]
		if len(e.Islands) == 0 {
			e.Islands = nil
		}
		return e
	}
	i := e.search(iv.Lo - 1)
	j := i
	for ; j < len(e.Islands) && e.Islands[j].Lo-1 <= iv.Hi; j++ {
		iv.Lo, iv.Hi = min(iv.Lo, e.Islands[j].Lo), max(iv.Hi, e.Islands[j].Hi)
	}
	out := make([]Interval, 0, len(e.Islands)-(j-i)+1)
	out = append(out, e.Islands[:i]...)
	out = append(out, iv)
	e.Islands = append(out, e.Islands[j:]...)
	return e
}

// merge is the entry that knows what either knows.
func (e Entry) merge(other Entry) Entry {
	e.Closed = e.Closed || other.Closed
	e.Sealed = e.Sealed || other.Sealed
	e.Prefix = max(e.Prefix, other.Prefix)
	a, b := e.Islands, other.Islands
	if len(a) == 0 && len(b) == 0 {
		return e
	}
	e.Islands = make([]Interval, 0, len(a)+len(b))
	for len(a) > 0 || len(b) > 0 {
		var iv Interval
		if len(b) == 0 || len(a) > 0 && a[0].Lo <= b[0].Lo {
			iv, a = a[0], a[1:]
		} else {
			iv, b = b[0], b[1:]
		}
		switch n := len(e.Islands); {
		case iv.Lo-1 <= e.Prefix: // ascending by Lo: so no island was kept yet
			e.Prefix = max(e.Prefix, iv.Hi)
		case n > 0 && iv.Lo-1 <= e.Islands[n-1].Hi:
			e.Islands[n-1].Hi = max(e.Islands[n-1].Hi, iv.Hi)
		default:
			e.Islands = append(e.Islands, iv)
		}
	}
	if len(e.Islands) == 0 {
		e.Islands = nil
	}
	return e
}

// A Clock is the set of dots that a replica knows, with the closed bit of each
// incarnation. Use NewClock; not safe for concurrent use.
//
// An incarnation below the birth horizon H that has no entry is retired: all its
// dots are known, and dead. So the state of an incarnation only ever goes from
// nothing to an entry, which grows, to retired; and clocks merge by taking the
// further one. An entry below H counts like any other until it is retired.
type Clock struct {
	entries map[Inc]Entry
	horizon Inc // H, also kept as the prefix of the entry of horizonInc
}

// horizonInc is the incarnation, which no process has, whose entry carries the
// horizon to wherever entries go: to the store, into sums, to peers.
const horizonInc Inc = 0

// NewClock is a clock that knows nothing.
func NewClock() *Clock { return &Clock{entries: make(map[Inc]Entry)} }

// Len is the number of incarnations with an entry.
func (c *Clock) Len() int { return len(c.entries) }

// Entry is what is known of inc; the zero Entry if nothing. The islands must
// not be modified.
func (c *Clock) Entry(inc Inc) Entry { return c.entries[inc] }

// Incs are the incarnations with an entry, ascending.
func (c *Clock) Incs() []Inc { return slices.Sorted(maps.Keys(c.entries)) }

// Horizon is H: an incarnation below it that has no entry is retired.
func (c *Clock) Horizon() Inc { return c.horizon }

// Retired reports whether all dots of inc are known without an entry.
func (c *Clock) Retired(inc Inc) bool {
	if inc >= c.horizon {
		return false
	}
	_, ok := c.entries[inc]
	return !ok
}

// raise makes the horizon h, unless it is higher, and reports change.
func (c *Clock) raise(h Inc) (changed bool) {
	if h <= c.horizon {
		return false
	}
	c.Set(horizonInc, Entry{Prefix: uint64(h)})
	return true
}

// retire gives up the entry of inc, which must be below the horizon.
func (c *Clock) retire(inc Inc) { delete(c.entries, inc) }

// Contains reports whether d is known.
func (c *Clock) Contains(d Dot) bool {
	e, ok := c.entries[d.Inc]
	return ok && e.Contains(d.Seq) || !ok && d.Inc < c.horizon
}

// ContainsAll reports whether every dot of s is known.
func (c *Clock) ContainsAll(s Dots) bool {
	for _, sp := range s {
		if !c.entries[sp.Inc].Covers(Interval{sp.Lo, sp.Hi}) && !c.Retired(sp.Inc) {
			return false
		}
	}
	return true
}

// Missing are the dots of s that are not known.
func (c *Clock) Missing(s Dots) Dots {
	var out Dots
	for _, sp := range s {
		e := c.entries[sp.Inc]
		if sp.Hi <= e.Prefix || c.Retired(sp.Inc) {
			continue
		}
		lo := max(sp.Lo, e.Prefix+1)
		for _, is := range e.Islands[e.search(lo):] {
			if is.Lo > sp.Hi {
				break
			}
			if lo < is.Lo {
				out = append(out, Span{sp.Inc, lo, is.Lo - 1})
			}
			lo = is.Hi + 1 // 0 above the largest seq: then nothing is missing
		}
		if lo <= sp.Hi && lo > 0 {
			out = append(out, Span{sp.Inc, lo, sp.Hi})
		}
	}
	return out
}

// Add makes the dots of sp known and reports whether any was new.
func (c *Clock) Add(sp Span) (changed bool) {
	e := c.entries[sp.Inc]
	iv := Interval{sp.Lo, sp.Hi}
	if e.Covers(iv) || c.Retired(sp.Inc) {
		return false
	}
	c.entries[sp.Inc] = e.with(iv)
	return true
}

// AddAll makes the dots of s known and reports the incarnations of which any was
// new, ascending. It is one pass for each incarnation, whatever the number of
// spans.
func (c *Clock) AddAll(s Dots) (changed []Inc) {
	for len(s) > 0 {
		inc, n := s[0].Inc, 1
		for n < len(s) && s[n].Inc == inc {
			n++
		}
		if c.addRun(inc, s[:n]) {
			changed = append(changed, inc)
		}
		s = s[n:]
	}
	return changed
}

// addRun makes spans, which are all of inc, known.
func (c *Clock) addRun(inc Inc, spans Dots) (changed bool) {
	if len(spans) == 1 {
		return c.Add(spans[0])
	}
	if c.ContainsAll(spans) {
		return false
	}
	more := Entry{Islands: make([]Interval, len(spans))}
	for i, sp := range spans {
		more.Islands[i] = Interval{sp.Lo, sp.Hi}
	}
	c.entries[inc] = c.entries[inc].merge(more)
	return true
}

// Close sets the closed bit of inc and reports whether it was clear. A retired
// one was closed long ago.
func (c *Clock) Close(inc Inc) (changed bool) {
	e := c.entries[inc]
	if e.Closed || c.Retired(inc) {
		return false
	}
	e.Closed = true
	c.entries[inc] = e
	return true
}

// Set replaces what is known of inc. An entry that knows nothing is removed.
func (c *Clock) Set(inc Inc, e Entry) {
	if inc == horizonInc {
		c.horizon = Inc(e.Prefix)
	}
	if e.empty() {
		delete(c.entries, inc)
		return
	}
	c.entries[inc] = e
}

// MergeEntry joins e into the entry of inc and reports change.
func (c *Clock) MergeEntry(inc Inc, e Entry) (changed bool) {
	if inc == horizonInc {
		return c.raise(Inc(e.Prefix))
	}
	if c.Retired(inc) {
		return false
	}
	old := c.entries[inc]
	merged := old.merge(e)
	if merged.Equal(old) {
		return false
	}
	c.entries[inc] = merged
	return true
}

// Merge joins other into c and reports the incarnations whose entries changed,
// ascending.
func (c *Clock) Merge(other *Clock) (changed []Inc) {
	for _, inc := range other.Incs() {
		// The horizon comes last: until then the entries that are lacking below the
		// other's are not retired here.
		if inc != horizonInc && c.MergeEntry(inc, other.entries[inc]) {
			changed = append(changed, inc)
		}
	}
	if other.horizon == 0 {
		return changed
	}
	for inc := range c.entries {
		if inc != horizonInc && other.Retired(inc) {
			c.retire(inc)
			changed = append(changed, inc)
		}
	}
	if c.raise(other.horizon) {
		changed = append(changed, horizonInc)
	}
	slices.Sort(changed)
	return changed
}

// Clone is an independent copy. Entries are shared, which is safe: they are
// replaced and never changed in place.
func (c *Clock) Clone() *Clock { return &Clock{entries: maps.Clone(c.entries), horizon: c.horizon} }

// Equal reports whether both clocks know the same.
func (c *Clock) Equal(other *Clock) bool {
	return maps.EqualFunc(c.entries, other.entries, Entry.Equal)
}
