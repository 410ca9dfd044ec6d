package gossip

import (
	"iter"
	"time"

	"github.com/meshkv/meshkv/crdt"
	"github.com/meshkv/meshkv/gossip/reconcile"
)

const (
	scrubCells = 2048                         // looked at in one step
	scrubPause = int64(50 * time.Millisecond) // between two
)

// scrub recomputes the sums of the tries from the cells and the clock, in steps
// of some tenths of a millisecond. A million cells take 25 s.
type scrub struct {
	at   int64 // when the next step is due; 0: not known yet
	run  *reconcile.Scrub
	sets bool // the trie and the cells were not the same in number
}

// nextScrub is when a step is due.
func (r *Replicator) nextScrub() int64 {
	if r.scrub.at == 0 {
		return r.nowNs
	}
	return r.scrub.at
}

// tickScrub makes a step, if one is due.
func (r *Replicator) tickScrub() {
	every := int64(r.cfg.Limits.ScrubEvery)
	switch {
	case r.scrub.at == 0: // not all keyspaces at once
		r.scrub.at = r.nowNs + every/2 + int64(r.cfg.Seed%uint64(every/2+1))
		return
	case r.nowNs < r.scrub.at:
		return
	case r.scrub.run == nil:
		r.scrub.sets = r.data.Len() != r.replica.Cells().Len()
		r.scrub.run = r.data.Scrub()
	}
	if !r.scrub.run.Step(scrubCells, r.sound) {
		r.scrub.at = r.nowNs + scrubPause
		return
	}
	wrong := r.scrub.run.Wrong()
	if r.scrub.sets {
		wrong++
	}
	if r.clock.root(r.replica.Clock()) != reconcile.ClockRoot(r.cfg.Seed, r.replica.Clock()) {
		wrong++
	}
	r.stats.Scrubs++
	r.scrub = scrub{at: r.nowNs + every}
	if wrong > 0 {
		r.stats.ScrubDifferences += int64(wrong)
		r.repair()
	}
}

// sound reports whether a cell that was in the trie when the scrub began is live,
// or has gone from the trie as well since.
func (r *Replicator) sound(c *crdt.Cell) bool {
	return r.replica.Cells().ByDot(c.Dot) != nil || !r.data.Has(c)
}

// cells are the live cells, by themselves where they can be listed, and else by
// the trie.
func (r *Replicator) cells() iter.Seq[*crdt.Cell] {
	if all, ok := r.replica.Cells().(interface{ All() iter.Seq[*crdt.Cell] }); ok {
		return all.All()
	}
	return r.data.Snapshot().All
}

// rebuild makes the tries anew from the cells and the clock, and ends the sessions
// that go by the old ones. It is the answer to a bug or to failing memory, and
// takes about half a second for a million cells.
func (r *Replicator) rebuild() {
	data := reconcile.NewTrie(r.cfg.Seed)
	for c := range r.cells() {
		if r.replica.Cells().ByDot(c.Dot) != nil {
			data.Insert(c)
		}
	}
	r.data = data
	r.clock = newClockSum(r.cfg.Seed, r.replica.Clock())
	for _, l := range r.order {
		r.abort(l)
		l.summaryDue = true
	}
}
