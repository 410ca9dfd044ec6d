package reconcile

import (
	"slices"

	"github.com/meshkv/meshkv/crdt"
)

// A task is something to be sent. Its kind is that of the message, or one of
// the following.
type task struct {
	kind   uint8
	prefix prefix

	absent, want mask    // of an answer; absent of a clock diff, too
	rest         []piece // of a clock list or diff that has begun
	begun        bool    // rest is filled
	sent         bool    // in part

	settling *settling // of taskSettle
}

// A settling compares all own cells under a prefix with the peer's dots there.
type settling struct {
	peer   []crdt.Dot // ascending
	found  mask       // which of them are here as well
	walk   *walker
	held   *crdt.Cell   // taken from walk, and not yet sent
	values bool         // send cells, not dots first
	offers []*crdt.Cell // otherwise
}

// Kinds of tasks that are not messages.
const (
	taskSettle = 128 + iota // decide on every cell under a prefix
	taskEnd                 // a query is finished
)

// push adds what is to be sent about a prefix: to the stack of the initiator
// if it is a query, and in order otherwise.
func (s *Session) push(t task) {
	if s.initiator && t.kind != taskSettle {
		s.queries = append(s.queries, t)
		return
	}
	s.tasks = append(s.tasks, t)
}

// compareClock finds how to go on with a prefix of the clock, given the peer's
// sum.
func (s *Session) compareClock(p prefix, peer Sum) {
	own := s.clock.sum(p)
	switch {
	case same(own, peer):
	case own.Count <= s.limits.clockList || peer.Count <= s.limits.clockList || p.depth == maxDepth:
		s.push(task{kind: kindClockList, prefix: p})
	default:
		s.push(task{kind: kindClockSums, prefix: p})
	}
}

// compareData finds how to go on with a prefix of the live cells, given the
// peer's sum.
func (s *Session) compareData(p prefix, peer Sum) {
	own := s.snap.Data.sum(p)
	switch {
	case same(own, peer):
	case peer.Count == 0:
		s.settlePrefix(p, nil)
	case own.Count <= s.limits.dataList || p.depth == maxDepth:
		s.push(task{kind: kindDataList, prefix: p})
	case peer.Count <= s.limits.dataList:
		s.push(task{kind: kindAsk, prefix: p})
	default:
		s.push(task{kind: kindDataSums, prefix: p})
	}
}

// settlePrefix decides on all cells under p, where the peer has just these
// dots. Few cells are offered by their dots first, since the peer may have got
// them elsewhere since its snapshot. Where it holds next to nothing, that costs
// more than it saves.
func (s *Session) settlePrefix(p prefix, peer []crdt.Dot) {
	own := s.snap.Data.sum(p).Count
	if own == 0 && len(peer) == 0 {
		return
	}
	s.push(task{kind: taskSettle, prefix: p, settling: &settling{
		peer: peer, found: newMask(len(peer)), walk: s.snap.Data.walk(p),
		values: len(peer) == 0 || own > min(s.limits.valuesOver+4*uint64(len(peer)), offerMax),
	}})
}

// answer decides on the dots that the peer holds under a prefix and that are
// not in S⁰ here. It reports false if there are none.
func (s *Session) answer(p prefix, t *settling) (a task, some bool) {
	a = task{kind: kindAnswer, prefix: p, absent: newMask(len(t.peer)), want: newMask(len(t.peer))}
	for i, d := range t.peer {
		if t.found.has(i) {
			continue
		}
		some = true
		a.absent.set(i)
		if !s.snap.has(d) && s.list(d) {
			a.want.set(i)
			s.await(d)
		}
	}
	return a, some
}

// await notes that d was asked for.
func (s *Session) await(d crdt.Dot) {
	if !s.listed[d] {
		s.listed[d] = true
		s.awaited++
	}
}

// listing is the own cells under p, which are few, ascending by dot: in the
// order of the bits of a mask.
func (s *Session) listing(p prefix) []*crdt.Cell {
	var cells []*crdt.Cell
	for w := s.snap.Data.walk(p); ; {
		c := w.next()
		if c == nil {
			break
		}
		cells = append(cells, c)
	}
	slices.SortFunc(cells, byDot)
	return cells
}

func byDot(a, b *crdt.Cell) int { return a.Dot.Compare(b.Dot) }

// drop notes a cell of S⁰ that the peer knew and did not hold.
func (s *Session) drop(d crdt.Dot) {
	s.drops = append(s.drops, d)
	s.stats.Drops++
}
