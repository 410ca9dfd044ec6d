package model

import (
	"slices"

	"github.com/meshkv/meshkv/crdt"
)

// retireAge is how many incarnations later one is old enough to be retired.
const retireAge = 2

// A survey is what a node has published, and under which incarnation.
type survey struct {
	inc crdt.Inc
	crdt.Survey
}

// seals is what the nodes of a world share about closed incarnations.
type seals struct {
	// orderly: only what has ended is closed, no process starts from an older or a
	// foreign directory, and no op is on its way for longer than it takes to agree.
	// Then nothing may be rejected.
	orderly  bool
	surveys  []survey         // by node, as published
	views    [][]crdt.Inc     // by node and node: the incarnation that the first believes to be the second's
	gone     [][]bool         // by node and node: reaped, in the view of the first
	record   *crdt.Agreement  // the newest
	older    []crdt.Agreement // that a replica may still see
	rejected dotSet
}

func (w *world) newSeals() seals {
	s := seals{orderly: w.chance(50), surveys: make([]survey, len(w.nodes)), rejected: dotSet{}}
	for range w.nodes {
		view := make([]crdt.Inc, len(w.nodes))
		for i, n := range w.nodes {
			view[i] = n.real.Inc()
		}
		s.views, s.gone = append(s.views, view), append(s.gone, make([]bool, len(w.nodes)))
	}
	return s
}

// writer is a node that may write: one that finds its incarnation retired takes
// a new one first.
func (w *world) writer() *node {
	n := w.node()
	w.learnHorizon(n)
	return n
}

func (w *world) learnHorizon(n *node) {
	if n.real.Inc() < n.real.Clock().Horizon() {
		w.renew(n)
	}
}

func (w *world) renew(n *node) {
	w.tally.Renewed++
	inc := w.mint()
	n.real.Renew(inc)
	n.ref.inc, n.ref.seq = inc, 0
}

// publish tells all others what a node holds of closed incarnations.
func (w *world) publish() {
	n := w.node()
	if w.bug != bugSurveyEmpty && !n.met || w.orderly && w.late(n, 0) {
		return // or it is not what it was a minute ago
	}
	if inc := n.real.Inc(); !n.real.Clock().Entry(inc).Closed && inc >= n.real.Clock().Horizon() {
		w.tally.Published++
		w.surveys[n.id] = survey{inc, n.real.Survey(n.cells)}
	}
}

// refresh is the news of a membership: who runs now is no longer gone.
func (w *world) refresh() {
	x, n := w.node(), w.node()
	w.views[x.id][n.id], w.gone[x.id][n.id] = n.real.Inc(), false
}

// reap takes a node out that may well live.
func (w *world) reap() {
	x, n := w.node(), w.node()
	if x == n || w.orderly {
		return
	}
	w.tally.Reaped++
	w.gone[x.id][n.id] = true
	w.closeAt(x, w.views[x.id][n.id])
}

// calm is a while without writes, in which most things get to most nodes.
func (w *world) calm() {
	order := w.rng.Perm(len(w.nodes))
	apart := w.chance(40) // nobody hears of what the others have: surveys may be alike all the same
	for _, i := range order {
		for inc := crdt.Inc(1); inc <= w.lastInc; inc++ {
			ended := !slices.ContainsFunc(w.nodes, func(n *node) bool { return n.real.Inc() == inc })
			if e := w.nodes[i].real.Clock().Entry(inc); ended && e.Max() > 0 && !e.Closed && !apart && w.chance(50) {
				w.closeAt(w.nodes[i], inc)
			}
		}
	}
	for _, i := range append(order, order...) {
		if j := w.rng.IntN(len(w.nodes)); i != j && !apart {
			w.fullSession(w.nodes[i], w.nodes[j])
		}
		w.refresh()
		w.publish()
	}
	for range 2 * len(w.nodes) {
		w.refresh()
		w.publish()
	}
	for range w.nodes {
		w.decide()
		w.agree()
	}
}

// decide makes a node look at the surveys of all members that it has not reaped.
func (w *world) decide() {
	x := w.node()
	own := x.real.Survey(x.cells)
	limit := max(w.lastInc, retireAge) - retireAge
	if x.real.Clock().Entry(x.real.Inc()).Closed || w.bug != bugSurveyEmpty && !x.met {
		return
	}
	var others []crdt.Survey
	for _, n := range w.nodes {
		if n == x || w.gone[x.id][n.id] {
			continue
		}
		inc := w.views[x.id][n.id]
		s := w.surveys[n.id]
		closed := x.real.Clock().Entry(inc).Closed || x.real.Clock().Retired(inc)
		switch {
		case w.bug == bugCountAnswers && s.inc != inc: // whoever has published nothing has nothing to say
			continue
		case w.bug == bugSkipClosed && closed:
			continue
		case s.inc != inc || closed:
			return
		}
		others = append(others, s.Survey)
		limit = min(limit, inc)
	}
	a, ok := crdt.Decide(own, others, limit)
	if !ok || w.orderly && w.late(x, a.Horizon) {
		return
	}
	w.tally.Decided++
	if w.orderly {
		w.arrive(x, a.Horizon)
	}
	if w.record != nil {
		w.older = append(w.older, *w.record)
	}
	w.record = &a
}

// late reports whether an op is on its way that would come after the agreement.
func (w *world) late(x *node, horizon crdt.Inc) bool {
	clock := x.real.Clock()
	for _, from := range w.queues {
		for _, q := range from {
			for _, m := range q {
				for _, d := range m.ref.covers {
					if !clock.Contains(d) && (d.Inc < horizon || clock.Entry(d.Inc).Closed) {
						return true
					}
				}
			}
		}
	}
	return false
}

// arrive takes copies of ops off their way that a minute later are on none.
func (w *world) arrive(x *node, horizon crdt.Inc) {
	for from := range w.queues {
		for to := range w.queues[from] {
			w.queues[from][to] = slices.DeleteFunc(w.queues[from][to], func(m message) bool {
				return slices.ContainsFunc(m.ref.covers, func(d crdt.Dot) bool {
					return d.Inc < horizon || x.real.Clock().Entry(d.Inc).Closed
				})
			})
		}
	}
}

// agree shows a node an agreement, mostly the newest.
func (w *world) agree() {
	n := w.node()
	if w.record == nil || w.bug != bugSurveyEmpty && !n.met {
		return
	}
	a := *w.record
	if len(w.older) > 0 && w.chance(20) {
		a = w.older[w.rng.IntN(len(w.older))]
	}
	before := slices.DeleteFunc(n.real.Clock().Incs(), func(inc crdt.Inc) bool { return inc == 0 })
	if n.real.Agree(a, n.cells) {
		w.tally.Agreed++
		for _, inc := range before {
			if n.real.Clock().Retired(inc) {
				w.tally.Retired++
			}
		}
		n.ref.agree(a.Horizon)
		w.settle(n)
		w.check(n)
	}
}

// reject takes note of what a session rejected, which must be what the replica
// reports.
func (w *world) reject(n *node, dots []crdt.Dot) {
	reported := dotSet{}
	for _, c := range n.real.Changes().Rejected {
		reported[c.Dot] = true
	}
	for _, d := range dots {
		if !reported[d] {
			w.fail("node %d: %v is lost and was not reported", n.id, d)
		}
		delete(reported, d)
		w.rejected[d] = true
		w.tally.Rejected++
		if w.orderly {
			w.fail("node %d: %v was rejected, and nothing had gone wrong", n.id, d)
		}
	}
	if len(reported) > 0 {
		w.fail("node %d: %d cells were reported and not rejected", n.id, len(reported))
	}
}

// justified checks that a cell that is gone was removed by an op that is known
// here, or reported.
func (w *world) justified(n *node, d crdt.Dot) {
	if w.rejected[d] {
		return
	}
	for a := range n.ref.A {
		if slices.Contains(w.issued[a].removes, d) {
			return
		}
	}
	w.fail("node %d: %v is gone, no known op removed it, and it was not reported", n.id, d)
}
