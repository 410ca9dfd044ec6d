package keyspace

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/crdt"
	"github.com/meshkv/meshkv/gossip"
)

const (
	defaultHistory = 100
	historyChanges = 4096      // changes looked at in one hold of the mutex
	historyValues  = 256 << 10 // bytes of values in one History
	historyRemoves = 64        // removed versions that one event names
)

// numbered is a change and its number in the log.
type numbered struct {
	change
	n uint64
}

// History tells what this node remembers of a key. It is put together of what is kept
// anyway: the ring of recent ops, which has all of an op but only for a minute; the
// change log, which has what the key showed, for as long as it reaches; and the cells
// that are there, which are known however old they are. Writes that another one stood for
// before they were sent never came here.
func (k *Keyspace) History(ctx context.Context, key string, o *client.HistoryOptions) (client.History, error) {
	if err := checkKey(key); err != nil {
		return client.History{}, err
	}
	limit := 0
	if o != nil {
		limit = o.Limit
	}
	switch {
	case limit < 0:
		return client.History{}, fmt.Errorf("%w: a limit cannot be negative, this one is %d", client.ErrBadRequest, limit)
	case limit == 0:
		limit = defaultHistory
	}
	limit = min(limit, client.MaxHistory)
	h := client.History{Keyspace: k.name, Key: key, Node: k.env.Name}
	var t tale
	k.mu.Lock()
	h.OpsSince = k.rep.RecentSince()
	t.ops = opsOf(key, k.rep.RecentOps(key))
	k.index.Descend(key, func(c *crdt.Cell) bool { // the newest: a set may have very many
		t.cells = append(t.cells, c)
		return len(t.cells) <= limit
	})
	if shown := k.shownOf(key); shown != nil {
		t.shown = shown.Dot
	}
	last := k.log.last.Load()
	k.mu.Unlock()
	var err error
	if t.changes, h.Since, err = k.changesOf(ctx, key, last, limit+1); err != nil {
		return client.History{}, err
	}
	h.Events = t.events(k.writerName)
	if len(h.Events) > limit {
		h.Events, h.More = h.Events[:limit], true
	}
	room := historyValues
	for i := range h.Events {
		if room -= len(h.Events[i].Value); room < 0 {
			h.Events[i].Value = nil
		}
	}
	return h, nil
}

// changesOf is the newest changes of key up to number last, newest first, and since when
// all changes are in the log. The mutex is let go between pages: what the log drops
// meanwhile is missed, and since says so.
func (k *Keyspace) changesOf(ctx context.Context, key string, last uint64, limit int) (found []numbered, since time.Time, err error) {
	for n := last; ; {
		if err := ctx.Err(); err != nil {
			return nil, since, err
		}
		k.mu.Lock()
		oldest := k.log.oldest()
		for range historyChanges {
			if n < oldest || len(found) == limit {
				since = k.logSince()
				k.mu.Unlock()
				return found, since, nil
			}
			// A summary of many cells tells nothing about any of them.
			if c, _, ok := k.log.at(n); ok && c.key() == key && c.register() {
				found = append(found, numbered{c, n})
			}
			n--
		}
		k.mu.Unlock()
	}
}

// logSince is from when on the log holds every change. Called with k.mu held.
func (k *Keyspace) logSince() time.Time {
	if oldest := k.log.oldest(); oldest > 1 {
		c, _, _ := k.log.at(oldest)
		return time.UnixMilli(c.at)
	}
	return time.UnixMilli(k.openedMs)
}

// A tale is what a history is told from. Pure; not safe for concurrent use.
type tale struct {
	ops     []gossip.RecentOp // newest first
	changes []numbered        // newest first
	cells   []*crdt.Cell      // that are there now
	shown   crdt.Dot          // of them; zero if none is

	dots []crdt.Dot // of the cells that the key is known to have had, ascending
}

// opsOf takes out of batches what concerns key: an op of each of its cells, the first of which
// removes what the batch does. A batch without such a cell may only have removed some.
func opsOf(key string, ops []gossip.RecentOp) (out []gossip.RecentOp) {
	for _, r := range ops {
		op := r.Op
		if op.Key != "" || op.Cell == nil {
			out = append(out, r)
			continue
		}
		removes, own := op.Removes, false
		for _, c := range append([]*crdt.Cell{op.Cell}, op.More...) {
			if c.Key == key {
				out = append(out, gossip.RecentOp{Op: &crdt.Op{Dot: c.Dot, Cell: c, Removes: removes, HLC: op.HLC}, At: r.At})
				removes, own = nil, true
			}
		}
		if !own {
			out = append(out, gossip.RecentOp{Op: &crdt.Op{Dot: op.Dot, Removes: removes, HLC: op.HLC}, At: r.At})
		}
	}
	return out
}

// collect finds the cells of which the parts of the tale know.
func (t *tale) collect() {
	for _, c := range t.changes {
		for _, cell := range []*crdt.Cell{c.prev, c.next} {
			if cell != nil {
				t.dots = append(t.dots, cell.Dot)
			}
		}
	}
	for _, c := range t.cells {
		t.dots = append(t.dots, c.Dot)
	}
	for _, r := range t.ops {
		if r.Op.Cell != nil {
			t.dots = append(t.dots, r.Op.Dot)
		}
	}
	slices.SortFunc(t.dots, crdt.Dot.Compare)
	t.dots = slices.Compact(t.dots)
}

// events tells it, newest first. name is that of the node with an incarnation.
func (t *tale) events(name func(crdt.Inc) string) (events []client.HistoryEvent) {
	t.collect()
	told := make(map[crdt.Dot]bool)  // ops and cells that have an event
	known := make(map[crdt.Dot]bool) // cells of earlier changes
	for i := len(t.changes) - 1; i >= 0; i-- {
		events = append(events, t.change(&t.changes[i].change, told, known, name))
	}
	slices.Reverse(events)
	for _, r := range t.ops {
		if e := t.opEvent(r, name); !told[r.Op.Dot] && (r.Op.Cell != nil || len(e.Removes) > 0) {
			told[r.Op.Dot] = true
			events = append(events, e)
		}
	}
	for _, c := range t.cells {
		if !told[c.Dot] {
			e := putEvent(c, name)
			e.Shown = c.Dot == t.shown
			events = append(events, e)
		}
	}
	slices.SortStableFunc(events, func(a, b client.HistoryEvent) int {
		if c := b.Arrived.Compare(a.Arrived); c != 0 || !a.Arrived.IsZero() {
			return c
		}
		return b.Modified.Compare(a.Modified)
	})
	return events
}

// change is the event of a change of what the key showed.
func (t *tale) change(c *change, told, known map[crdt.Dot]bool, name func(crdt.Inc) string) client.HistoryEvent {
	at := time.UnixMilli(c.at)
	defer func() {
		for _, cell := range []*crdt.Cell{c.prev, c.next} {
			if cell != nil {
				known[cell.Dot] = true
			}
		}
	}()
	if c.next != nil {
		e := putEvent(c.next, name)
		e.Arrived, e.Shown = at, true
		switch {
		case known[c.next.Dot] || c.prev != nil && c.next.Compare(c.prev) < 0:
			e.Type = client.HistoryReappeared
		default:
			if i := slices.IndexFunc(t.ops, func(r gossip.RecentOp) bool { return r.Op.Dot == c.next.Dot }); i >= 0 {
				e = t.opEvent(t.ops[i], name)
				e.Shown = true
				told[c.next.Dot] = true
				return e
			}
		}
		told[c.next.Dot] = true
		if c.gone && t.removal(c.prev.Dot, told) == nil { // or it is told by itself
			e.Removes = []client.Version{versionOf(c.prev.Dot)}
		}
		return e
	}
	switch c.why {
	case crdt.Shown:
	case crdt.HiddenExpired:
		return client.HistoryEvent{Type: client.HistoryExpired, Version: versionOf(c.prev.Dot), Origin: name(c.prev.Dot.Inc), Arrived: at}
	default:
		return client.HistoryEvent{Type: client.HistoryOwnerFailed, Version: versionOf(c.prev.Dot), Origin: name(c.prev.Dot.Inc), Arrived: at}
	}
	if r := t.removal(c.prev.Dot, told); r != nil {
		e := t.opEvent(*r, name)
		e.Type = client.HistoryDelete
		told[r.Op.Dot] = true
		return e
	}
	return client.HistoryEvent{Type: client.HistoryDelete, Arrived: at, Removes: []client.Version{versionOf(c.prev.Dot)}}
}

// removal is the op that removed a cell and put none, if it is not told yet. Or nil.
func (t *tale) removal(d crdt.Dot, told map[crdt.Dot]bool) *gossip.RecentOp {
	for i := range t.ops {
		if op := t.ops[i].Op; op.Cell == nil && !told[op.Dot] && op.Removes.Contains(d) {
			return &t.ops[i]
		}
	}
	return nil
}

// opEvent is the event of an op, as far as it alone tells. Of an op that removed cells of
// several keys, only those that this key is known to have had are its own.
func (t *tale) opEvent(r gossip.RecentOp, name func(crdt.Inc) string) client.HistoryEvent {
	e := client.HistoryEvent{
		Type: client.HistoryRemoved, Version: versionOf(r.Op.Dot), Origin: name(r.Op.Dot.Inc), Modified: time.UnixMilli(r.Op.HLC.WallMs()),
	}
	if r.Op.Cell != nil {
		e = putEvent(r.Op.Cell, name)
	}
	e.Arrived = time.UnixMilli(r.At.UnixMilli())
	if r.Op.Key == "" {
		for _, d := range t.dots {
			if r.Op.Removes.Contains(d) && len(e.Removes) < historyRemoves {
				e.Removes = append(e.Removes, versionOf(d))
			}
		}
		return e
	}
	for _, s := range r.Op.Removes {
		for seq := s.Lo; seq <= s.Hi && len(e.Removes) < historyRemoves; seq++ {
			e.Removes = append(e.Removes, client.Version{Inc: uint64(s.Inc), Seq: seq})
		}
	}
	return e
}

// putEvent is of a cell. Only registers are shown as users wrote them.
func putEvent(c *crdt.Cell, name func(crdt.Inc) string) client.HistoryEvent {
	e := client.HistoryEvent{
		Type: client.HistoryPut, Version: versionOf(c.Dot), Origin: name(c.Dot.Inc), Modified: time.UnixMilli(c.HLC.WallMs()),
		Bytes: len(c.Value), Value: c.Value,
	}
	if c.Kind != crdt.KindRegister {
		e.Value, e.Bytes = nil, len(c.Path)+len(c.Value)
	}
	return e
}

func versionOf(d crdt.Dot) client.Version { return client.Version{Inc: uint64(d.Inc), Seq: d.Seq} }
