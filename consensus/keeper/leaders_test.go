package keeper

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/meshkv/meshkv/consensus/machine"
)

// A world is the model: one log, whoever leads, and holders of sessions. Times are
// milliseconds.
type world struct {
	t     *rapid.T
	now   int
	m     *machine.Machine
	index uint64

	k         *Keeper // nil: nobody leads
	term      int
	proposals []proposed // of the leader, in the order of the log
	beats     []beat     // keep-alives on their way, or not acknowledged yet

	promised map[machine.LeaseID]int // until when a holder counts on its session
	ended    map[machine.LeaseID]int // when it expired
}

type proposed struct {
	at     int // when its outcome is known
	body   machine.Body
	part   Effects
	failed bool
}

type beat struct {
	id      machine.LeaseID
	sent    int
	arrives int
	term    int // in which it was heard; 0: not yet
	ttl     int
	marked  bool
	answer  int // when the leadership is confirmed
}

func newWorld(t *rapid.T) *world {
	return &world{t: t, m: machine.New(), promised: map[machine.LeaseID]int{}, ended: map[machine.LeaseID]int{}}
}

func (w *world) apply(b machine.Body) {
	w.t.Helper()
	w.index++
	c := machine.Command{Body: b}
	encoded, err := c.AppendBinary(nil)
	if err != nil {
		w.t.Fatalf("%T: %v", b, err)
	}
	live := map[machine.LeaseID]bool{}
	w.m.View().Leases(func(l *machine.Lease) bool {
		live[l.ID] = true
		return true
	})
	if res := w.m.Apply(w.index, encoded); res.Err != nil {
		w.t.Fatalf("%T: %v", b, res.Err)
	}
	for id := range live {
		if w.m.View().Lease(id) != nil {
			continue
		}
		w.ended[id] = w.now
		if w.now < w.promised[id] {
			w.t.Fatalf("session %d expired at %d, its holder counts on %d", id, w.now, w.promised[id])
		}
		if w.k != nil {
			w.k.Ended(id)
		}
	}
}

// elect makes a leader, after all that is in the log is applied.
func (w *world) elect() {
	var leases []machine.Lease
	w.m.View().Leases(func(l *machine.Lease) bool {
		leases = append(leases, *l)
		return true
	})
	w.k = New(at(w.now), leases)
	w.term++
}

// depose ends the leader. Of its proposals the first n are in the log of the next.
func (w *world) depose(n int) {
	w.k = nil
	for _, p := range w.proposals[:n] {
		if !p.failed {
			w.apply(p.body)
		}
	}
	w.proposals = nil
}

// tick asks the keeper. latency is called for each proposal.
func (w *world) tick(latency func() (ms int, failed bool)) {
	next, ok := w.k.NextDue()
	if !ok || next.After(at(w.now)) {
		return
	}
	e := w.k.Tick(at(w.now))
	if next, ok := w.k.NextDue(); ok && !next.After(at(w.now)) {
		w.t.Fatalf("due at %v again, it is %d", next, w.now)
	}
	propose := func(b machine.Body, part Effects) {
		ms, failed := latency()
		p := proposed{at: w.now + ms, body: b, part: part, failed: failed}
		if n := len(w.proposals); n > 0 {
			p.at = max(p.at, w.proposals[n-1].at)
		}
		w.proposals = append(w.proposals, p)
	}
	if len(e.Checkpoint) > 0 {
		propose(&machine.Checkpoint{Leases: e.Checkpoint}, Effects{Checkpoint: e.Checkpoint})
	}
	if len(e.Expire) > 0 {
		propose(&machine.Expire{IDs: e.Expire}, Effects{Expire: e.Expire})
	}
}

// outcomes delivers what is known by now.
func (w *world) outcomes() {
	for len(w.proposals) > 0 && w.proposals[0].at <= w.now {
		p := w.proposals[0]
		w.proposals = w.proposals[1:]
		if p.failed {
			w.k.Failed(at(w.now), p.part)
			continue
		}
		w.apply(p.body)
		w.k.Applied(p.part)
		for _, l := range p.part.Checkpoint {
			for i := range w.beats {
				if b := &w.beats[i]; b.id == l.ID && b.term == w.term && l.Left == 0 {
					b.marked = false
				}
			}
		}
	}
}

// hear delivers keep-alives and their acknowledgements. One that finds no leader is
// lost, and so is one whose leader does not lead any more when that is to be confirmed.
func (w *world) hear(confirm func() int) {
	var rest []beat
	for _, b := range w.beats {
		switch {
		case b.term == 0 && b.arrives > w.now:
			rest = append(rest, b)
		case b.term == 0 && w.k != nil:
			ttl, ack := w.k.KeepAlive(at(w.now), b.id)
			if ack != Gone {
				b.term, b.ttl, b.marked, b.answer = w.term, int(ttl/time.Millisecond), ack == Marked, w.now+confirm()
				rest = append(rest, b)
			}
		case b.term == 0 || b.term != w.term || w.k == nil:
		case b.answer > w.now || b.marked:
			rest = append(rest, b)
		default:
			until := b.sent + b.ttl
			w.promised[b.id] = max(w.promised[b.id], until)
			if end, ok := w.ended[b.id]; ok && end < until {
				w.t.Fatalf("session %d expired at %d, and is promised until %d", b.id, end, until)
			}
		}
	}
	w.beats = rest
}

// Whatever leaders, messages and proposals do, no session expires before its holder's own
// deadline.
func TestNeverExpiredEarly(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		ttls := map[machine.LeaseID]uint64{1: 1000, 2: 1000, 3: 3000}
		for id := machine.LeaseID(1); id <= 3; id++ {
			w.apply(&machine.Grant{ID: id, TTL: ttls[id]})
			w.promised[id] = int(ttls[id])
		}
		ms := rapid.SampledFrom([]int{0, 0, 1, 20, 100, 400, 1100})
		latency := func() (int, bool) { return ms.Draw(t, "latency"), rapid.IntRange(0, 5).Draw(t, "fails") == 0 }
		confirm := func() int { return ms.Draw(t, "confirm") }
		for range rapid.IntRange(20, 120).Draw(t, "steps") {
			w.now += rapid.SampledFrom([]int{1, 10, 100, 250, 500}).Draw(t, "step")
			switch rapid.IntRange(0, 9).Draw(t, "event") {
			case 0, 1:
				if w.k != nil {
					w.depose(rapid.IntRange(0, len(w.proposals)).Draw(t, "in the log"))
				}
			case 2:
				if w.k == nil {
					w.elect()
				}
			case 3, 4, 5, 6:
				id := machine.LeaseID(rapid.IntRange(1, 3).Draw(t, "session"))
				w.beats = append(w.beats, beat{id: id, sent: w.now, arrives: w.now + ms.Draw(t, "on its way")})
			}
			if w.k == nil && rapid.Bool().Draw(t, "elect") {
				w.elect()
			}
			if w.k != nil {
				w.outcomes()
			}
			w.hear(confirm)
			if w.k != nil {
				w.tick(latency)
			}
		}
	})
}

// A session that is silent for ever ends within 2 TTL + 3c + 2g, however often leaders
// change as long as each lasts for TTL/2 + c.
func TestDeadSessionEnds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const ttl, step = 1000, 5
		w := newWorld(t)
		c := rapid.IntRange(1, 10).Draw(t, "c") * 4 * step
		g := rapid.IntRange(0, 20).Draw(t, "g") * step
		latency := func() (int, bool) { // a round later, and looked for a step later
			return rapid.SampledFrom([]int{c - 2*step, c - 2*step, 0}).Draw(t, "latency"), false
		}
		w.apply(&machine.Grant{ID: 1, TTL: ttl})
		w.elect()
		if rapid.Bool().Draw(t, "marked before") { // it was silent, and is heard the last time
			w.now = ttl / 2
			w.tick(func() (int, bool) { return 0, false })
			w.outcomes()
		}
		w.beats = append(w.beats, beat{id: 1, sent: w.now})
		w.hear(func() int { return 0 })
		last := w.now
		bound := last + 2*ttl + 3*c + 2*g
		lasts := func() int {
			return ttl/2 + c + rapid.SampledFrom([]int{0, step, ttl/2 - 2*step, ttl}).Draw(t, "lasts longer by")
		}
		change, until := last+rapid.SampledFrom([]int{0, ttl / 2, ttl/2 + c - 3*step}).Draw(t, "first lasts"), 0
		for ; w.ended[1] == 0; w.now += step {
			if w.now > bound {
				t.Fatalf("it lives at %d, heard at %d: TTL %d, c %d, g %d", w.now, last, ttl, c, g)
			}
			switch {
			case w.k != nil && w.now >= change:
				w.depose(0)
				until = w.now + rapid.IntRange(0, g/step).Draw(t, "gap")*step
			case w.k != nil:
				w.outcomes()
			}
			if w.k == nil && w.now >= until {
				w.elect()
				change = w.now + lasts()
			}
			if w.k != nil {
				w.tick(latency)
			}
		}
	})
}
