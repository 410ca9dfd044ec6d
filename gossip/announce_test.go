package gossip

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/meshkv/meshkv/crdt"
	"github.com/meshkv/meshkv/gossip/overlay"
)

// announce gives r the IHAVE of n single dots of inc from seq on, every second.
func announce(t *testing.T, r *Replicator, peer PeerID, inc crdt.Inc, seq uint64, n int) {
	t.Helper()
	var dots crdt.Dots
	for i := range uint64(n) {
		dots = append(dots, crdt.Span{Inc: inc, Lo: seq + 2*i, Hi: seq + 2*i})
	}
	e := crdt.NewEncoder()
	appendDots(e, kindIHave, dots)
	if err := r.Step(start, peer, e.Bytes()); err != nil {
		t.Fatal(err)
	}
}

// However much is announced at once, no GRAFT asks for more than the peer takes;
// the rest is left to a session.
func TestGraftIsBounded(t *testing.T) {
	a, b := newReplicator("a", 1, Limits{}), newReplicator("b", 2, Limits{})
	linkUp(start, a, b)
	pump(t, start, a, b)
	for i := range 20 {
		announce(t, b, "a", 9, uint64(1+i*8192), 4096)
	}
	if n, limit := b.wantSpans(), b.cfg.Limits.WantSpans; n > limit {
		t.Fatalf("%d spans are waited for, at most %d", n, limit)
	}
	now := start.Add(50 * time.Millisecond)
	b.Tick(now)
	if n, limit := len(b.links["a"].graft), b.cfg.Limits.AnnounceSpans; n == 0 || n > limit {
		t.Fatalf("%d spans are asked for, at most %d", n, limit)
	}
	if b.Stats().DropWant == 0 || b.links["a"].need == needNone {
		t.Fatalf("need %v, stats %+v", b.links["a"].need, b.Stats())
	}
	pump(t, now, a, b)
	if st := a.Stats(); st.DropMalformed != 0 || st.GraftsReceived != 1 {
		t.Fatalf("stats %+v", st)
	}
}

func TestAnnounceSpansFitAMessage(t *testing.T) {
	if n := newReplicator("a", 1, Limits{AnnounceSpans: 1 << 20}).cfg.Limits.AnnounceSpans; n != maxDotSpans {
		t.Fatalf("AnnounceSpans %d", n)
	}
}

// An announcement is hearsay: only an op, a cell or a clock shows that another
// process writes under our Inc.
func TestAnnouncementOfOwnDotProvesNothing(t *testing.T) {
	a, b := newReplicator("a", 1, Limits{}), newReplicator("b", 2, Limits{})
	linkUp(start, a, b)
	pump(t, start, a, b)
	announce(t, b, "a", 2, 7, 1)
	if b.Lost() {
		t.Fatal("an announcement cost the Inc")
	}
	twin := newWriter(2)
	e := crdt.NewEncoder()
	appendOp(e, twin.put(t, "k", ""))
	if err := b.Step(start, "a", e.Bytes()); err != nil {
		t.Fatal(err)
	}
	if !b.Lost() {
		t.Fatal("an op under our Inc was not noticed")
	}
}

// What is left to a session does not wait for a calm that successful sessions
// made long.
func TestDropsShortenTheCalm(t *testing.T) {
	for name, drop := range map[string]func(t *testing.T, r *Replicator){
		"announcements not sent": func(t *testing.T, r *Replicator) {
			for i := range uint64(10) {
				r.announce(r.links["b"], crdt.Span{Inc: 9, Lo: 1 + 2*i, Hi: 1 + 2*i})
			}
		},
		"announcements not waited for": func(t *testing.T, r *Replicator) { announce(t, r, "b", 9, 1, 10) },
		"an overflow": func(t *testing.T, r *Replicator) {
			for i := range 10 {
				mustPut(t, r, start, fmt.Sprint(i))
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newReplicator("a", 1, Limits{AnnounceSpans: 4, QueueRefs: 4})
			r.LinkUp(start, "b", RoleDirect)
			l := r.links["b"]
			l.calm, l.calmAt = maxBackoff, start.UnixNano()+maxBackoff
			drop(t, r)
			if l.calm != hurriedCalm || l.calmAt != start.UnixNano()+hurriedCalm {
				t.Fatalf("calm %v until %v later", time.Duration(l.calm), time.Duration(l.calmAt-start.UnixNano()))
			}
		})
	}
}

// In a full mesh announcements are for those whom the origin cannot reach: the more
// links, the fewer on each.
func TestAnnouncementsOfAFullMesh(t *testing.T) {
	received := func(nodes int) float64 {
		f := newForest(t, nodes, 7, Limits{})
		for k := range 50 {
			mustPut(t, f.nodes[0], f.now, fmt.Sprint(k))
			f.run(20)
		}
		f.run(2000)
		s := f.total()
		if s.GraftsSent > 0 || s.OpsDuplicate > 0 {
			t.Errorf("%d nodes: %d grafts, %d duplicates", nodes, s.GraftsSent, s.OpsDuplicate)
		}
		frames := int64(0)
		for _, r := range f.nodes {
			frames += r.Stats().FramesReceived
		}
		return float64(frames) / float64(nodes)
	}
	few, many := received(4), received(overlay.MaxComplete)
	if many > 3*few {
		t.Errorf("a node of %d receives %.0f frames, one of 4 %.0f", overlay.MaxComplete, many, few)
	}
}

// A late op from an origin whose link goes on is waited for. If the link ends, others
// are asked at once.
func TestLateOpsOfALivingOriginAreWaitedFor(t *testing.T) {
	for _, ends := range []bool{false, true} {
		f := newForest(t, 6, 8, Limits{})
		mustPut(t, f.nodes[0], f.now, "first")
		f.run(300)
		before := f.total().GraftsSent
		held := []flight{}
		f.lost = func(from, to int, frame []byte) bool {
			if from == 0 && to == 1 && !ends {
				held = append(held, flight{from, to, slices.Clone(frame)})
			}
			return from == 0 && to == 1
		}
		d := mustPut(t, f.nodes[0], f.now, "late")
		f.run(600)
		if ends {
			f.cut(0, 1)
			f.run(20)
			if f.nodes[1].replica.Clock().Contains(d) == false {
				t.Error("nobody was asked after the link ended")
			}
			continue
		}
		if n := f.total().GraftsSent - before; n != 0 || f.nodes[1].replica.Clock().Contains(d) {
			t.Errorf("%d grafts while the origin's link goes on", n)
		}
		f.lost = nil
		for _, x := range held {
			if err := f.nodes[x.to].Step(f.now, f.nodes[x.from].cfg.Self, x.frame); err != nil {
				t.Fatal(err)
			}
		}
		if !f.nodes[1].replica.Clock().Contains(d) {
			t.Error("the late op is not there")
		}
	}
}
