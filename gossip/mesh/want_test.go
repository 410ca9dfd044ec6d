package mesh

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"
)

func short(c *Config) { c.Timings.LinkSurplus = 300 * time.Millisecond }

// peers are those to whom the node has a link.
func (n *node) peers() []string {
	n.Mesh.mu.Lock()
	defer n.Mesh.mu.Unlock()
	var names []string
	for name := range n.byName {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// A link goes when neither side wants it, and not before; nobody is suspect for that. It comes back when one side
// wants it.
func TestWantedLinks(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	a := c.start("a", 11, short)
	b := c.start("b", 12, short, a.Addr())
	d := c.start("d", 13, short, a.Addr())
	meet(patience, a, b, d)

	a.Want([]string{"d", "nobody"}) // b still wants a
	b.Want([]string{"d", "a"})
	a.until("b's wish", patience, func() bool { return slices.Equal(a.peers(), []string{"b", "d"}) })
	b.Want([]string{"d"})
	a.until("no link", patience, func() bool { return slices.Equal(a.peers(), []string{"d"}) })
	b.until("no link", patience, func() bool { return slices.Equal(b.peers(), []string{"d"}) })
	if a.Stats().LinksSurplus+b.Stats().LinksSurplus == 0 {
		t.Error("nobody says that the link was surplus")
	}
	// Longer than it takes to become suspect.
	until := time.Now().Add(suspectAfter + 5*controlTick)
	a.until("time passes", patience, func() bool { return time.Now().After(until) })
	for _, n := range []*node{a, b} {
		for _, m := range n.Members() {
			if m.Status != StatusAlive {
				t.Errorf("%s: %v", n.self.name, m)
			}
		}
	}
	b.Want([]string{"a"}) // the higher name alone
	a.linked(patience, "b")
	b.linked(patience, "a")
}

// Over the limit links are refused, and those that nobody wants make room. Who is refused is still a member.
func TestMaxLinks(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	a := c.start("a", 11, func(c *Config) { c.MaxLinks = 2 })
	b := c.start("b", 12, nil, a.Addr())
	d := c.start("d", 13, nil, a.Addr())
	meet(patience, a, b, d)
	e := c.start("e", 14, nil, a.Addr())
	e.sees(patience, StatusAlive, "a", "b", "d")
	a.sees(patience, StatusAlive, "e")
	e.linked(patience, "b", "d")
	e.until("refusals", patience, func() bool { return a.Stats().LinksFull > 0 })
	if got := a.peers(); len(got) != 2 || slices.Contains(got, "e") {
		t.Errorf("links to %v", got)
	}
	until := time.Now().Add(suspectAfter + 5*controlTick)
	e.until("time passes", patience, func() bool { return time.Now().After(until) })
	for _, n := range []*node{a, e} {
		for _, m := range n.Members() {
			if m.Status != StatusAlive {
				t.Errorf("%s: a full peer is %v", n.self.name, m)
			}
		}
	}
	d.Want([]string{"b", "e"})
	a.Want([]string{"b", "e"})
	a.linked(patience, "e") // long before LinkSurplus ends that to d
	if got := a.peers(); !slices.Equal(got, []string{"b", "e"}) {
		t.Errorf("links to %v", got)
	}
}

func TestRosterSurplus(t *testing.T) {
	r := testRoster("m", 5)
	r.membership(epoch, member("a", 1, StatusAlive))
	r.linkUp(epoch, peer("a", 1), true)
	r.setWant(nil)
	ten := r.timing.LinkSurplus
	expect(t, "the peer wants it", kinds(r.tick(epoch.Add(time.Hour), 9)), nil)
	r.peerWants("a", false)
	now := epoch.Add(2 * time.Hour)
	expect(t, "from now on", kinds(r.tick(now, 9)), nil)
	expect(t, "not yet", kinds(r.tick(now.Add(ten-1), 9)), nil)
	r.setWant([]string{"a"})
	expect(t, "wanted again", kinds(r.tick(now.Add(ten), 9)), nil)
	r.setWant(nil)
	now = now.Add(ten)
	expect(t, "counted anew", kinds(r.tick(now, 9)), nil)
	r.membership(now, member("a", 1, StatusFailed))
	r.records["a"].nextJoin = now.Add(time.Hour)
	expect(t, "a failed one's may heal", kinds(r.tick(now.Add(ten), 9)), nil)
	r.membership(now, member("a", 1, StatusAlive))
	now = now.Add(ten)
	r.tick(now, 9)
	expect(t, "nobody wants it", kinds(r.tick(now.Add(ten), 9)), []string{"surplus "})
	drain(r)
	r.linkDown(now, "a")
	expect(t, "no dial", kinds(r.tick(now.Add(time.Hour), 9)), nil)
	expect(t, "not suspect", drain(r), nil)
	now = now.Add(time.Hour)
	r.setWant([]string{"a"})
	r.tick(now, 9)
	expect(t, "wanted anew", kinds(r.tick(now.Add(higherDials), 9)), []string{"dial a:1"})
	expect(t, "suspect a second later", drain(r), []string{"a suspect 1"})
	r.setWant(nil)
	r.tick(now.Add(higherDials), 9)
	expect(t, "not wanted, not suspect", drain(r), []string{"a alive 1"})
}

// In a cluster of thousands that has come apart, a node dials a bounded number of members, each of them in the end.
func TestRosterHealsAtAPace(t *testing.T) {
	for _, tc := range []struct{ alive, failed int }{{0, 9999}, {5000, 5000}, {9998, 1}, {200, 3}, {3, 31}} {
		t.Run(fmt.Sprint(tc.alive, " alive ", tc.failed, " failed"), func(t *testing.T) {
			r := testRoster("m", 5)
			r.setWant(nil)
			for i := range tc.alive {
				r.membership(epoch, member(fmt.Sprintf("a%05d", i), 1, StatusAlive))
			}
			r.tick(epoch, 256)
			for i := range tc.failed {
				name := fmt.Sprintf("f%05d", i)
				r.membership(epoch, member(name, 1, StatusAlive))
				r.membership(epoch, member(name, 1, StatusFailed))
			}
			dialed := make(map[string]int)
			total := 0
			// Each is dialed within twice this: its pause, when all are due at once, and the way of the bucket.
			round := r.timing.Redial * time.Duration(max(1, tc.alive/healers, tc.failed/healers)+1)
			length := 3 * round
			step := min(max(controlTick, round/600), r.timing.Redial/2)
			for now := epoch; now.Before(epoch.Add(length)); now = now.Add(step) {
				n := 0
				for _, a := range r.tick(now, 256) {
					n++
					dialed[a.name]++
					r.dialed(now, a.name, false)
				}
				if n > healers+1 {
					t.Fatalf("%d dials at once", n)
				}
				total += n
			}
			if most := int(length/(r.timing.Redial/healers)) + healers; total > most {
				t.Errorf("%d dials in %v, at most %d", total, length, most)
			}
			if len(dialed) != tc.failed {
				t.Errorf("%d of %d were ever dialed in %v", len(dialed), tc.failed, length)
			}
			// Of one dead member: no more dials by all together than from healers nodes.
			if tc.alive > healers {
				each := float64(total) / float64(tc.failed) / length.Seconds() * float64(tc.alive+1)
				if limit := 1.5 * healers / r.timing.Redial.Seconds(); each > limit {
					t.Errorf("a dead member gets %.1f dials/s, want at most %.1f", each, limit)
				}
			}
		})
	}
}

func TestRosterForceLeave(t *testing.T) {
	r := testRoster("m", 5)
	r.setWant(nil)
	r.membership(epoch, member("a", 1, StatusAlive))
	r.membership(epoch, member("b", 1, StatusAlive))
	for name, want := range map[string]error{"m": ErrAlive, "a": ErrAlive, "x": ErrUnknownMember} {
		if _, err := r.forceLeave(name); !errors.Is(err, want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	r.membership(epoch, member("a", 1, StatusFailed))
	drain(r)
	rem, err := r.forceLeave("a")
	if err != nil || rem != (removal{name: "a", inc: 1}) {
		t.Errorf("got %v, %v", rem, err)
	}
	expect(t, "left", drain(r), []string{"a left 1"})
	expect(t, "not dialed", kinds(r.tick(epoch.Add(time.Hour), 9)), nil)
	if rem, err := r.forceLeave("a"); err != nil || rem != (removal{}) {
		t.Errorf("again: %v, %v", rem, err)
	}
	if r.removed(removal{name: "a", inc: 1}) || r.removed(removal{name: "y", inc: 1}) {
		t.Error("no news is spread")
	}
	// What a peer says of a member that is alive here counts when that has failed.
	if !r.removed(removal{name: "b", inc: 1}) {
		t.Error("not taken")
	}
	expect(t, "alive here", drain(r), nil)
	r.membership(epoch, member("b", 1, StatusFailed))
	expect(t, "failed here, too", drain(r), []string{"b left 1"})
	// It was there after all.
	r.membership(epoch, member("b", 1, StatusAlive))
	expect(t, "back", drain(r), []string{"b alive 1"})
	r.membership(epoch, member("b", 1, StatusFailed))
	expect(t, "fails anew", drain(r), []string{"b failed 1"})
	// Forgotten while failed: it is not even dialed any more.
	r.membership(epoch, member("b", 1, StatusReaped))
	drain(r)
	if rem, err := r.forceLeave("b"); err != nil || rem != (removal{}) || len(r.former) != 0 {
		t.Errorf("a former member: %v, %v, %v", rem, err, r.former)
	}
	// A removal of a process before the one that is known says nothing.
	r.membership(epoch, member("c", 3, StatusFailed))
	if r.removed(removal{name: "c", inc: 2}) {
		t.Error("an old removal is taken")
	}
}

// A member that speaks to us is suspect, not failed; who falls silent, or whose link ends, is failed.
func TestRosterDoubts(t *testing.T) {
	r := testRoster("m", 5)
	r.membership(epoch, member("a", 1, StatusAlive))
	r.linkUp(epoch, peer("a", 1), true)
	drain(r)
	r.heard(epoch, "a", epoch)
	r.membership(epoch, member("a", 1, StatusFailed))
	expect(t, "speaks", drain(r), []string{"a suspect 1"})
	if got := r.doubts(); !slices.Equal(got, []string{"a"}) {
		t.Errorf("doubts %v", got)
	}
	// Membership is asked again and again, ever more seldom.
	joins, last, pause := 0, epoch, time.Duration(0)
	for now := epoch; now.Before(epoch.Add(10 * time.Minute)); now = now.Add(controlTick) {
		for _, k := range kinds(r.tick(now, 9)) {
			if k == "join a:1" {
				joins, pause, last = joins+1, now.Sub(last), now
			}
		}
	}
	if joins < 10 || joins > 25 || pause > maxDoubtPace+controlTick || pause < maxDoubtPace/2 {
		t.Errorf("%d joins, the last after %v", joins, pause)
	}
	now := epoch.Add(10 * time.Minute)
	r.heard(now, "a", now.Add(-3*r.timing.LinkPing))
	expect(t, "heard in time", drain(r), nil)
	r.heard(now, "a", now.Add(-3*r.timing.LinkPing-1))
	expect(t, "silent", drain(r), []string{"a failed 1"})
	r.heard(now, "a", now)
	expect(t, "no way back but by membership or a new link", drain(r), nil)
	r.linkUp(now, peer("a", 1), false)
	expect(t, "a new link", drain(r), []string{"a suspect 1"})
	r.linkDown(now, "a")
	expect(t, "none", drain(r), []string{"a failed 1"})
}
