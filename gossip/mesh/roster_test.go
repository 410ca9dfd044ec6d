package mesh

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/meshkv/meshkv/crdt"
	"pgregory.net/rapid"
)

var epoch = time.Unix(1_700_000_000, 0)

func testRoster(name string, inc uint64, seeds ...string) *roster {
	var t Timings
	t.setDefaults()
	return newRoster(hello{cluster: "c", name: name, inc: inc, addr: name + ":1"}, seeds, t, rand.New(rand.NewPCG(1, 2)))
}

func member(name string, inc uint64, s Status) Member {
	return Member{Name: name, Addr: name + ":1", Inc: inc, Status: s}
}

func peer(name string, inc uint64) hello {
	return hello{cluster: "c", name: name, inc: inc, addr: name + ":1"}
}

func drain(r *roster) (out []string) {
	for {
		e, ok := r.takeEvent()
		if !ok {
			return out
		}
		out = append(out, fmt.Sprintf("%s %v %d", e.Member.Name, e.Member.Status, e.Member.Inc))
	}
}

func kinds(acts []action) (out []string) {
	names := map[actionKind]string{actDial: "dial", actProbe: "probe", actSeed: "seed", actFormer: "former", actJoin: "join", actDrop: "drop", actSurplus: "surplus"}
	for _, a := range acts {
		out = append(out, names[a.kind]+" "+a.addr)
	}
	return out
}

func expect(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

func TestRosterEventsAreLatestStates(t *testing.T) {
	r := testRoster("m", 5)
	r.membership(epoch, member("a", 1, StatusAlive))
	r.membership(epoch, member("b", 1, StatusAlive))
	r.membership(epoch, member("a", 1, StatusFailed))
	expect(t, "coalesced", drain(r), []string{"a failed 1", "b alive 1"})
	r.membership(epoch, member("a", 1, StatusAlive))
	r.membership(epoch, member("a", 1, StatusFailed))
	expect(t, "back where it was", drain(r), nil)
	r.membership(epoch, member("a", 1, StatusReaped))
	expect(t, "reaped", drain(r), []string{"a reaped 1"})
	if r.records["a"] != nil {
		t.Error("a reaped member is kept")
	}
	r.membership(epoch, member("m", 4, StatusFailed))
	expect(t, "about this node", drain(r), nil)
}

func TestRosterSuspects(t *testing.T) {
	r := testRoster("m", 5)
	r.membership(epoch, member("a", 1, StatusAlive))
	r.membership(epoch, member("stock", 0, StatusAlive))
	drain(r)
	r.tick(epoch.Add(900*time.Millisecond), 9)
	expect(t, "before a second", drain(r), nil)
	r.tick(epoch.Add(1100*time.Millisecond), 9)
	expect(t, "no link for a second", drain(r), []string{"a suspect 1"})
	r.linkUp(epoch.Add(1200*time.Millisecond), peer("a", 1), true)
	expect(t, "link", drain(r), []string{"a alive 1"})
	r.linkDown(epoch.Add(2*time.Second), "a")
	r.tick(epoch.Add(3100*time.Millisecond), 9)
	r.membership(epoch.Add(4*time.Second), member("a", 1, StatusFailed))
	expect(t, "SWIM decides", drain(r), []string{"a failed 1"})
}

func TestRosterSupersedes(t *testing.T) {
	r := testRoster("m", 5)
	r.membership(epoch, member("a", 1, StatusAlive))
	r.linkUp(epoch, peer("a", 1), false)
	drain(r)
	if v := r.offer(epoch, peer("a", 2), false); v != accepted {
		t.Fatalf("newer process: %v", v)
	}
	p := peer("a", 2)
	p.addr = "elsewhere:1"
	r.linkUp(epoch, p, false)
	expect(t, "shown at once", drain(r), []string{"a alive 2"})
	if v := r.offer(epoch, peer("a", 1), false); v != refusedSuperseded {
		t.Errorf("older process: %v", v)
	}
	now := epoch.Add(time.Second)
	expect(t, "membership is asked", kinds(r.tick(now, 9)), []string{"join elsewhere:1"})
	expect(t, "at a pace", kinds(r.tick(now.Add(joinPace/2), 9)), nil)
	r.membership(now, member("a", 1, StatusFailed))
	expect(t, "the old one's death is not the new one's", drain(r), nil)
	r.membership(now, member("a", 2, StatusAlive))
	r.linkDown(now, "a")
	if v := r.offer(now, peer("a", 1), false); v != accepted {
		t.Errorf("older process without a newer link: %v", v)
	}
	r.linkUp(now, peer("a", 1), false)
	expect(t, "a link to a dead self", kinds(r.tick(now, 9)), []string{"drop "})
}

func TestRosterRefusesTheFuture(t *testing.T) {
	born := func(d time.Duration) uint64 { return uint64(crdt.NewInc(epoch.Add(d).UnixMilli(), 1<<22-1)) }
	for name, c := range map[string]struct {
		inc  uint64
		want refusal
	}{
		"long ago":         {1, accepted},
		"now":              {born(0), accepted},
		"a clock ahead":    {born(maxAhead), accepted},
		"too far ahead":    {born(maxAhead + time.Millisecond), refusedFuture},
		"the last of all":  {math.MaxUint64, refusedFuture},
		"a day of forgery": {born(24 * time.Hour), refusedFuture},
	} {
		r := testRoster("m", 5)
		r.membership(epoch, member("a", 1, StatusAlive))
		r.linkUp(epoch, peer("a", 1), false)
		for _, dialed := range []bool{false, true} {
			if got := r.offer(epoch, peer("a", c.inc), dialed); got != c.want && c.inc != 1 {
				t.Errorf("%s, dialed %v: got %v, want %v", name, dialed, got, c.want)
			}
		}
		if got := r.offer(epoch, peer("b", c.inc), false); got != c.want {
			t.Errorf("%s, unknown: got %v, want %v", name, got, c.want)
		}
		// Its time comes.
		if got := r.offer(epoch.Add(25*time.Hour), peer("b", c.inc), false); got != accepted && c.inc != math.MaxUint64 {
			t.Errorf("%s, later: got %v", name, got)
		}
	}
}

func TestRosterDials(t *testing.T) {
	r := testRoster("m", 5)
	r.membership(epoch, member("z", 1, StatusAlive))
	r.membership(epoch, member("a", 1, StatusAlive))
	r.membership(epoch, member("stock", 0, StatusAlive))
	expect(t, "the lower name dials", kinds(r.tick(epoch, 9)), []string{"dial z:1"})
	expect(t, "one dial at a time", kinds(r.tick(epoch, 9)), nil)
	now := epoch.Add(higherDials)
	expect(t, "the higher name after a while", kinds(r.tick(now, 9)), []string{"dial a:1"})
	r.dialed(epoch, "z", false)
	r.dialed(now, "a", false)
	expect(t, "again soon", kinds(r.tick(now.Add(dialBackoff), 9)), []string{"dial a:1", "dial z:1"})
	r.membership(now, member("stock", 0, StatusFailed))
	r.membership(now, member("z", 1, StatusLeft))
	expect(t, "stock is knocked at", kinds(r.tick(now.Add(time.Second), 9)), []string{"probe stock:1"})
	expect(t, "budget", kinds(r.tick(now.Add(time.Hour), 0)), nil)
	r.left = true
	expect(t, "after leaving", kinds(r.tick(now.Add(time.Hour), 9)), nil)
}

// However often it fails, a failed member is dialed at least every Redial.
func TestRosterRedialsFailed(t *testing.T) {
	r := testRoster("m", 5, "seed:1")
	r.membership(epoch, member("a", 1, StatusAlive))
	r.membership(epoch, member("a", 1, StatusFailed))
	last := map[string]time.Time{"dial a:1": epoch, "seed seed:1": epoch}
	for now := epoch; now.Before(epoch.Add(10 * time.Minute)); now = now.Add(controlTick) {
		for _, a := range r.tick(now, 9) {
			k := kinds([]action{a})[0]
			if d := now.Sub(last[k]); d > r.timing.Redial+controlTick {
				t.Fatalf("%s after %v", k, d)
			}
			last[k] = now
			if a.kind == actSeed {
				r.seedDialed(now, a.addr, nil, "")
			} else {
				r.dialed(now, a.name, false)
			}
		}
	}
	for k, at := range last {
		if epoch.Add(10*time.Minute).Sub(at) > 3*time.Second {
			t.Errorf("%s: last at %v", k, at.Sub(epoch))
		}
	}
}

func TestRosterSeeds(t *testing.T) {
	r := testRoster("m", 5, "127.0.0.1:9", "m.example:1", "b.example:1")
	acts := r.tick(epoch, 9)
	expect(t, "all at first", kinds(acts), []string{"seed 127.0.0.1:9", "seed m.example:1", "seed b.example:1"})
	r.seedDialed(epoch, "127.0.0.1:9", []string{"127.0.0.1:9"}, "a")
	r.seedDialed(epoch, "m.example:1", []string{"m:1"}, "m")
	r.seedDialed(epoch, "b.example:1", []string{"b:1"}, "")
	a := member("a", 1, StatusAlive)
	a.Addr = "127.0.0.1:9"
	r.membership(epoch, a)
	r.membership(epoch, member("b", 0, StatusAlive))
	r.linkUp(epoch, peer("a", 1), true)
	now := epoch.Add(3 * time.Second)
	expect(t, "all are there", kinds(r.tick(now, 9)), nil)
	r.linkDown(now, "a")
	a.Status = StatusFailed
	r.membership(now, a)
	r.membership(now, member("b", 0, StatusLeft))
	expect(t, "gone", kinds(r.tick(now.Add(3*time.Second), 9)), []string{"seed 127.0.0.1:9", "seed b.example:1", "dial 127.0.0.1:9"})
}

func TestRosterFormer(t *testing.T) {
	r := testRoster("m", 5)
	for i := range maxFormer + 3 {
		name := fmt.Sprintf("n%03d", i)
		r.membership(epoch, member(name, 1, StatusAlive))
		r.membership(epoch, member(name, 1, StatusFailed))
		r.membership(epoch, member(name, 1, StatusReaped))
	}
	r.membership(epoch, member("left", 1, StatusLeft))
	r.membership(epoch, member("left", 1, StatusReaped))
	drain(r)
	if len(r.former) != maxFormer || r.former[0].name != "n003" || len(r.records) != 0 {
		t.Fatalf("former %d from %s, records %d", len(r.former), r.former[0].name, len(r.records))
	}
	if n := len(r.tick(epoch.Add(formerPace), 1000)); n != maxFormer {
		t.Errorf("%d dials, want %d", n, maxFormer)
	}
	r.membership(epoch, member("n010", 2, StatusAlive))
	if len(r.former) != maxFormer-1 {
		t.Error("a member is dialed as a former one")
	}
	r.formerDialed(epoch, "n011", "n010")
	if len(r.former) != maxFormer-2 {
		t.Error("an address that is another node's now is dialed further")
	}
}

func TestRosterRemembers(t *testing.T) {
	r := testRoster("m", 5)
	r.remember([]former{{name: "m", addr: "m:9"}, {name: "a", addr: "a:1"}, {name: "old", addr: "m:1"}})
	expect(t, "at once", kinds(r.tick(epoch, 9)), []string{"former a:1"})
	last, longest := epoch, time.Duration(0)
	r.formerDialed(epoch, "a", "")
	for now := epoch; now.Before(epoch.Add(10 * time.Minute)); now = now.Add(controlTick) {
		for range r.tick(now, 9) {
			longest = max(longest, now.Sub(last))
			last = now
			r.formerDialed(now, "a", "")
		}
	}
	if longest > formerPace+controlTick || longest < formerPace/2 {
		t.Errorf("longest pause %v", longest)
	}
}

func TestRosterOffers(t *testing.T) {
	r := testRoster("m", 5)
	foreign := peer("a", 1)
	foreign.cluster = "x"
	for _, c := range []struct {
		name string
		peer hello
		want refusal
	}{
		{"cluster", foreign, refusedCluster},
		{"self", peer("m", 5), refusedSelf},
		{"twin", peer("m", 6), refusedName},
		{"unknown", peer("u", 1), accepted},
	} {
		if got := r.offer(epoch, c.peer, false); got != c.want {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
	for i := range maxUnknown {
		r.linkUp(epoch, peer(fmt.Sprint("u", i), 1), false)
	}
	if got := r.offer(epoch, peer("v", 1), false); got != refusedClosing {
		t.Errorf("one unknown too many: %v", got)
	}
	if got := r.offer(epoch, peer("u1", 2), false); got != accepted {
		t.Errorf("a known unknown: %v", got)
	}
}

// The lower name's dial wins, unless the other side must have lost it.
func TestRosterDuplicates(t *testing.T) {
	const soon, late = crossing / 2, crossing * 2
	for _, c := range []struct {
		peer         string // m is the node
		have, dialed bool   // dialed by m: the link that there is, and the new connection
		after        time.Duration
		want         refusal
	}{
		{"z", true, false, soon, refusedDuplicate},
		{"z", true, false, late, accepted},
		{"z", false, true, soon, accepted},
		{"z", true, true, soon, accepted},
		{"z", false, false, soon, accepted},
		{"a", false, true, soon, refusedDuplicate},
		{"a", false, true, late, accepted},
		{"a", true, false, soon, accepted},
		{"a", false, false, soon, accepted},
	} {
		r := testRoster("m", 5)
		r.linkUp(epoch, peer(c.peer, 1), c.have)
		if got := r.offer(epoch.Add(c.after), peer(c.peer, 1), c.dialed); got != c.want {
			t.Errorf("%+v: got %v", c, got)
		}
	}
}

func TestRosterGreetsReturnedStock(t *testing.T) {
	r := testRoster("m", 5)
	r.membership(epoch, member("stock", 0, StatusAlive))
	expect(t, "first", kinds(r.tick(epoch, 9)), nil)
	r.membership(epoch, member("stock", 0, StatusFailed))
	r.membership(epoch, member("stock", 0, StatusAlive))
	expect(t, "returned", kinds(r.tick(epoch, 9)), []string{"join stock:1"})
	expect(t, "once", kinds(r.tick(epoch, 9)), nil)
}

// wire is a dumb model of two nodes and the connections between them: what one end does, the other
// learns after a delay, in order.
type wire struct {
	now    time.Time
	nodes  [2]*roster
	link   [2]int // connection that each takes for the link; 0: none
	made   [2]int // links ever
	dead   map[int]bool
	next   int
	events []wireEvent
	delay  func() time.Duration
}

type wireEvent struct {
	at time.Time
	do func()
}

func (w *wire) later(do func()) {
	w.events = append(w.events, wireEvent{w.now.Add(w.delay()), do})
}

// lost: node i learns that its end of conn is gone.
func (w *wire) lost(i, conn int) {
	if w.link[i] == conn {
		w.link[i] = 0
		w.nodes[i].linkDown(w.now, w.nodes[1-i].self.name)
	}
}

func (w *wire) kill(conn int) {
	if conn == 0 || w.dead[conn] {
		return
	}
	w.dead[conn] = true
	for i := range 2 {
		w.later(func() { w.lost(i, conn) })
	}
}

func (w *wire) up(i, conn int, dialed bool) {
	old := w.link[i]
	w.link[i] = conn
	w.made[i]++
	w.nodes[i].linkUp(w.now, w.nodes[1-i].self, dialed)
	w.kill(old)
}

func (w *wire) dial(i int) {
	w.next++
	conn, start, other := w.next, w.now, 1-i
	me, they := w.nodes[i].self, w.nodes[other].self
	fail := func() { w.nodes[i].dialed(start, they.name, false) }
	w.later(func() { // the hello arrives
		if w.nodes[other].offer(w.now, me, false) != accepted {
			w.later(fail)
			return
		}
		w.up(other, conn, false)
		w.later(func() { // the answer arrives
			if w.dead[conn] || w.nodes[i].offer(w.now, they, true) != accepted {
				w.kill(conn)
				fail()
				return
			}
			w.up(i, conn, true)
			w.nodes[i].dialed(start, they.name, true)
		})
	})
}

func (w *wire) run(until time.Time) {
	for ; w.now.Before(until); w.now = w.now.Add(10 * time.Millisecond) {
		for len(w.events) > 0 {
			k := -1
			for i, e := range w.events {
				if !e.at.After(w.now) && (k < 0 || e.at.Before(w.events[k].at)) {
					k = i
				}
			}
			if k < 0 {
				break
			}
			do := w.events[k].do
			w.events = slices.Delete(w.events, k, k+1)
			do()
		}
		for i, n := range w.nodes {
			for _, a := range n.tick(w.now, 9) {
				if a.kind == actDial {
					w.dial(i)
				}
			}
		}
	}
}

// Whatever crosses, breaks and is noticed late: in the end both have the same connection, and
// it stays.
func TestRosterAgreesOnOneLink(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &wire{now: epoch, dead: make(map[int]bool)}
		w.delay = func() time.Duration {
			return time.Duration(rapid.IntRange(0, 40).Draw(t, "delay")) * 10 * time.Millisecond
		}
		seed := rapid.Uint64().Draw(t, "seed")
		for i, name := range []string{"a", "b"} {
			w.nodes[i] = testRoster(name, 7)
			w.nodes[i].rand = rand.New(rand.NewPCG(seed, uint64(i)))
		}
		w.nodes[0].membership(w.now, member("b", 7, StatusAlive))
		w.run(w.now.Add(time.Duration(rapid.IntRange(0, 150).Draw(t, "apart")) * 10 * time.Millisecond))
		w.nodes[1].membership(w.now, member("a", 7, StatusAlive))
		for range rapid.IntRange(0, 4).Draw(t, "breaks") {
			w.run(w.now.Add(time.Duration(rapid.IntRange(0, 300).Draw(t, "pause")) * 10 * time.Millisecond))
			i := rapid.IntRange(0, 1).Draw(t, "side")
			if rapid.Bool().Draw(t, "half open") && w.link[i] != 0 { // only one end notices for now
				conn := w.link[i]
				w.dead[conn] = true
				w.lost(i, conn)
				w.events = append(w.events, wireEvent{w.now.Add(5 * time.Second), func() { w.lost(1-i, conn) }})
			} else {
				w.kill(w.link[i])
			}
		}
		w.run(w.now.Add(12 * time.Second))
		made := w.made
		if w.link[0] == 0 || w.link[0] != w.link[1] || w.dead[w.link[0]] {
			t.Fatalf("links %v, dead %v", w.link, w.dead[w.link[0]])
		}
		w.run(w.now.Add(5 * time.Second))
		if w.made != made {
			t.Fatalf("links go on being made: %v, then %v", made, w.made)
		}
	})
}

// A node that said goodbye over its link left, even if membership only notices
// that it is gone. Its next process is another matter.
func TestRosterFarewell(t *testing.T) {
	r := testRoster("m", 5)
	r.membership(epoch, member("a", 1, StatusAlive))
	r.linkUp(epoch, peer("a", 1), true)
	drain(r)
	r.farewell("a", 1)
	expect(t, "goodbye", drain(r), []string{"a left 1"})
	r.membership(epoch, member("a", 1, StatusFailed))
	r.linkDown(epoch, "a")
	expect(t, "found dead", drain(r), nil)
	if acts := r.tick(epoch.Add(time.Minute), 8); len(acts) != 0 {
		t.Errorf("dialed a node that left: %q", kinds(acts))
	}
	r.linkUp(epoch.Add(time.Minute), peer("a", 2), false)
	expect(t, "next process", drain(r), []string{"a alive 2"})
	expect(t, "join", kinds(r.tick(epoch.Add(time.Minute), 8)), []string{"join a:1"})
	r.membership(epoch, member("a", 2, StatusAlive))
	r.membership(epoch, member("a", 2, StatusFailed))
	expect(t, "next process failed, which speaks to us", drain(r), []string{"a suspect 2"})
	r.linkDown(epoch.Add(time.Minute), "a")
	expect(t, "next process failed", drain(r), []string{"a failed 2"})
}
