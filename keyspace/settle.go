package keyspace

import (
	"slices"
	"time"

	"github.com/meshkv/meshkv/crdt"
)

// maxSettling bounds how many losers are watched; the others wait their turn.
const maxSettling = 1 << 16

// settling knows since when this node has held the losers among siblings of which
// it wrote the winner. Pure; not safe for concurrent use.
type settling struct {
	since map[crdt.Dot]int64 // ms since the Unix epoch
}

// due takes the losers that there are now and returns those that were held for
// after, ascending. Whoever is a loser no longer is forgotten.
func (s *settling) due(losers []crdt.Dot, nowMs int64, after time.Duration) []crdt.Dot {
	since := make(map[crdt.Dot]int64, len(losers))
	var out []crdt.Dot
	for _, d := range losers {
		at, ok := s.since[d]
		if !ok {
			at = nowMs
		}
		if len(since) < maxSettling {
			since[d] = at
		}
		if nowMs-at >= after.Milliseconds() {
			out = append(out, d)
		}
	}
	s.since = since
	slices.SortFunc(out, crdt.Dot.Compare)
	return out
}

// settleSiblings removes losers of concurrent puts, where the keyspace opted in:
// only there a value may be lost to a concurrent one that is shown in its place.
// Only the origin of the winner does so, with an op as for any other removal.
func (k *Keyspace) settleSiblings(now time.Time) {
	after := k.settleAfter
	if after <= 0 || k.frozen() {
		return
	}
	own := k.rep.Replica().Inc()
	var losers []crdt.Dot
	for _, key := range k.index.siblingKeys() {
		winner := k.shownOf(key)
		if winner == nil || winner.Dot.Inc != own || winner.Kind != crdt.KindRegister {
			continue
		}
		for _, c := range k.index.all(key) {
			if c != winner && c.Path == winner.Path && c.Kind == crdt.KindRegister && c.Compare(winner) < 0 {
				losers = append(losers, c.Dot)
			}
		}
	}
	k.remove(now, k.settling.due(losers, now.UnixMilli(), after))
}

// siblingKeys are the keys with more than one live cell, ascending, but for large ones of another type.
func (x *index) siblingKeys() []string {
	var keys []string
	x.siblings.Range(func(key string, _ []*crdt.Cell) bool {
		keys = append(keys, key)
		return true
	})
	x.crowds.Range(func(key string, w *crowd) bool {
		if w.top().Kind == crdt.KindRegister {
			keys = append(keys, key)
		}
		return true
	})
	slices.Sort(keys)
	return keys
}

// SetSettleAfter makes this node remove concurrent values that it has held for
// that long beside the one that it wrote and that is shown. 0, the default, keeps
// them for ever.
func (k *Keyspace) SetSettleAfter(d time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.settleAfter = d
}
