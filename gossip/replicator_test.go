package gossip

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/meshkv/meshkv/crdt"
)

var start = time.Unix(1_800_000_000, 0)

func newReplicator(self PeerID, inc crdt.Inc, lim Limits) *Replicator {
	return New(Config{Self: self, Limits: lim, Rand: rand.New(rand.NewPCG(uint64(inc), 7))},
		crdt.State{Inc: inc, Cells: crdt.NewMapCells()}, nil)
}

func mustPut(t testing.TB, r *Replicator, now time.Time, key string) crdt.Dot {
	t.Helper()
	d, err := r.Put(now, crdt.Write{Key: key, Kind: crdt.KindRegister, Value: []byte("v"), HLC: crdt.HLCAt(now.UnixMilli())})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// pump carries frames between linked replicators until nothing is left.
func pump(t testing.TB, now time.Time, all ...*Replicator) {
	t.Helper()
	for moved := true; moved; {
		moved = false
		for _, a := range all {
			for _, b := range all {
				for {
					frame, ok := a.NextFrame(now, b.cfg.Self, nil, 64<<10)
					if !ok {
						break
					}
					moved = true
					if err := b.Step(now, a.cfg.Self, frame); err != nil {
						t.Fatalf("%s to %s: %v", a.cfg.Self, b.cfg.Self, err)
					}
				}
			}
		}
	}
}

func linkUp(now time.Time, all ...*Replicator) {
	for _, a := range all {
		for _, b := range all {
			if a != b {
				a.LinkUp(now, b.cfg.Self, RoleDirect)
			}
		}
	}
}

func TestWakesAreGivenOnce(t *testing.T) {
	r := newReplicator("a", 1, Limits{})
	r.LinkUp(start, "c", RoleDirect)
	r.LinkUp(start, "b", RoleDirect)
	if got := slices.Clone(r.TakeWakes()); !slices.Equal(got, []PeerID{"c", "b"}) {
		t.Fatalf("woken at link up: %v", got)
	}
	mustPut(t, r, start, "k")
	if got := r.TakeWakes(); len(got) != 0 {
		t.Fatalf("woken while awake: %v", got)
	}
	for ok := true; ok; {
		_, ok = r.NextFrame(start, "b", nil, 1<<16)
	}
	mustPut(t, r, start, "k2")
	mustPut(t, r, start, "k3")
	if got := slices.Clone(r.TakeWakes()); !slices.Equal(got, []PeerID{"b"}) {
		t.Fatalf("woken: %v", got)
	}
	r.Tick(start.Add(50 * time.Millisecond)) // a wake that was lost is repeated
	if got := slices.Clone(r.TakeWakes()); !slices.Equal(got, []PeerID{"b", "c"}) {
		t.Fatalf("woken by the tick: %v", got)
	}
	if _, ok := r.NextFrame(start, "nobody", nil, 1<<16); ok || r.Ready("nobody") {
		t.Fatal("a frame for nobody")
	}
}

func TestFramesAreBounded(t *testing.T) {
	r := newReplicator("a", 1, Limits{})
	r.LinkUp(start, "b", RoleDirect)
	for i := range 100 {
		if _, err := r.Put(start, crdt.Write{Key: fmt.Sprint(i), Kind: crdt.KindRegister, Value: make([]byte, 300)}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.Put(start, crdt.Write{Key: "large", Kind: crdt.KindRegister, Value: make([]byte, 100_000)}); err != nil {
		t.Fatal(err)
	}
	frames, large := 0, 0
	for {
		buf := []byte("kept")
		frame, ok := r.NextFrame(start, "b", buf, 1000)
		if !ok {
			if string(frame) != "kept" {
				t.Fatalf("buffer is %q", frame)
			}
			break
		}
		if string(frame[:4]) != "kept" {
			t.Fatal("buffer was not continued")
		}
		frames++
		if n := len(frame) - 4; n > 100_000 {
			large++
		} else if n > 1000 {
			t.Fatalf("frame of %d bytes", n)
		}
	}
	if frames < 35 || large != 1 {
		t.Fatalf("%d frames, %d large", frames, large)
	}
}

func TestMalformedFrameBreaksTheLink(t *testing.T) {
	a, b := newReplicator("a", 1, Limits{}), newReplicator("b", 2, Limits{})
	linkUp(start, a, b)
	mustPut(t, a, start, "k")
	frame, _ := a.NextFrame(start, "b", nil, 1<<16)
	err := b.Step(start, "a", append(slices.Clone(frame), 0xc1))
	if !errors.Is(err, crdt.ErrCodec) {
		t.Fatalf("error %v", err)
	}
	if b.Replica().Cells().Len() != 1 {
		t.Error("what came before the bad message did not take effect")
	}
	if err := b.Step(start, "a", frame); !errors.Is(err, ErrBroken) {
		t.Errorf("the next frame: %v", err)
	}
	mustPut(t, b, start, "k2")
	if b.Ready("a") {
		t.Error("a broken link has something to send")
	}
	st := b.Stats()
	if st.DropMalformed != 1 || st.DropBrokenLink != 1 {
		t.Errorf("counted %d malformed, %d after", st.DropMalformed, st.DropBrokenLink)
	}
	b.LinkUp(start, "a", RoleDirect)
	a.LinkUp(start, "b", RoleDirect)
	pump(t, start, a, b)
	if da, ca := a.Root(); true {
		if db, cb := b.Root(); da != db || ca != cb {
			t.Error("the next link did not repair it")
		}
	}
	if err := b.Step(start, "stranger", frame); err != nil || b.Stats().DropNoLink != 1 {
		t.Errorf("a frame without a link: %v", err)
	}
}

func TestUnknownMessagesAndElementsAreSkipped(t *testing.T) {
	b := newReplicator("b", 2, Limits{})
	b.LinkUp(start, "a", RoleDirect)
	e := crdt.NewEncoder()
	e.Reset(nil)
	e.ArrayLen(5) // a hello with one element more
	e.Uint(kindHello)
	e.Uint(5)
	e.Uint(0)
	e.Uint(1)
	e.Str("later")
	e.ArrayLen(2) // a kind of a later version
	e.Uint(99)
	e.ArrayLen(1)
	e.Uint(1)
	appendOp(e, newWriter(1).put(t, "k", ""))
	if err := b.Step(start, "a", e.Bytes()); err != nil {
		t.Fatal(err)
	}
	if b.Replica().Cells().Len() != 1 || b.Stats().DropUnknownKind != 1 || !b.links["a"].met {
		t.Fatal("the known was not taken")
	}
	for _, bad := range [][]byte{{0x90}, {0x91, kindOp}, {0x92, kindOp}, {0x92, 0xa1, 'x'}, {0x93, kindBusy, 1}} {
		b.LinkUp(start, "a", RoleDirect)
		if err := b.Step(start, "a", bad); !errors.Is(err, crdt.ErrCodec) {
			t.Errorf("% x: %v", bad, err)
		}
	}
}

func TestAnnounceAndGraft(t *testing.T) {
	a, b, c := newReplicator("a", 1, Limits{}), newReplicator("b", 2, Limits{}), newReplicator("c", 3, Limits{})
	linkUp(start, a, b, c)
	pump(t, start, a, b, c)
	a.LinkDown("c")
	c.LinkDown("a")
	now := start.Add(time.Millisecond)
	for i := range 10 {
		mustPut(t, a, now, fmt.Sprint(i))
	}
	pump(t, now, a, b, c)
	if n := c.Replica().Cells().Len(); n != 0 {
		t.Fatalf("%d cells before an announcement", n)
	}
	now = now.Add(50 * time.Millisecond)
	b.Tick(now)
	pump(t, now, a, b, c)
	if st := b.Stats(); st.IHavesSent != 10 {
		t.Fatalf("%d dots announced", st.IHavesSent)
	}
	now = now.Add(19 * time.Millisecond)
	c.Tick(now)
	if c.Ready("b") {
		t.Fatal("asked before its time")
	}
	now = now.Add(time.Millisecond)
	c.Tick(now)
	pump(t, now, a, b, c)
	if n := c.Replica().Cells().Len(); n != 10 {
		t.Fatalf("%d cells after the graft", n)
	}
	if st := b.Stats(); st.OpsGrafted != 10 || st.GraftsReceived != 1 || st.SessionsAccepted+st.SessionsOpened != 0 {
		t.Fatalf("stats %+v", st)
	}
}

// Consecutive ops are one span and may wait; many spans may not.
func TestAnnouncementOfManyDoesNotWait(t *testing.T) {
	b, c := newReplicator("b", 2, Limits{}), newReplicator("c", 3, Limits{})
	linkUp(start, b, c)
	b.LinkUp(start, "origin", RoleDirect)
	pump(t, start, b, c)
	e := crdt.NewEncoder()
	issue := func(w writer) {
		appendOp(e, w.put(t, "k", ""))
	}
	one := newWriter(10)
	for range 1000 {
		issue(one)
	}
	for i := range 30 {
		issue(newWriter(crdt.Inc(100 + i)))
	}
	if err := b.Step(start, "origin", e.Bytes()); err != nil {
		t.Fatal(err)
	}
	pump(t, start, b, c)
	if st := c.Stats(); st.IHavesReceived != 0 {
		t.Fatalf("%d dots of 31 spans announced at once", st.IHavesReceived)
	}
	e.Reset(nil)
	issue(newWriter(200))
	if err := b.Step(start, "origin", e.Bytes()); err != nil {
		t.Fatal(err)
	}
	pump(t, start, b, c)
	if st := c.Stats(); st.IHavesReceived != 1031 {
		t.Fatalf("%d dots announced", st.IHavesReceived)
	}
}

func TestNobodyElseIsAskedAtOnce(t *testing.T) {
	r := newReplicator("r", 9, Limits{})
	for _, p := range []PeerID{"a", "b", "origin"} {
		r.LinkUp(start, p, RoleDirect)
		_, _ = r.NextFrame(start, p, nil, 1<<16)
	}
	if err := r.Step(start, "origin", encoded(newWriter(1).put(t, "k", ""))); err != nil {
		t.Fatal(err)
	}
	e := crdt.NewEncoder()
	e.Reset(nil)
	appendDots(e, kindIHave, crdt.Dots{{Inc: 1, Lo: 1, Hi: 1 << 60}})
	for _, p := range []PeerID{"a", "b"} {
		if err := r.Step(start, p, e.Bytes()); err != nil {
			t.Fatal(err)
		}
	}
	at := func(d time.Duration) (asked []int) {
		now := start.Add(d)
		r.Tick(now)
		for _, p := range []PeerID{"a", "b"} {
			before := r.stats.GraftsSent
			for ok := true; ok; {
				_, ok = r.NextFrame(now, p, nil, 1<<16)
			}
			asked = append(asked, int(r.stats.GraftsSent-before))
		}
		return asked
	}
	for _, tc := range []struct {
		after time.Duration
		want  []int
	}{{19 * time.Millisecond, []int{0, 0}}, {20 * time.Millisecond, []int{1, 0}}, {100 * time.Millisecond, []int{0, 0}}, {300 * time.Millisecond, []int{0, 1}}} {
		if got := at(tc.after); !slices.Equal(got, tc.want) {
			t.Fatalf("after %s: asked %v, want %v", tc.after, got, tc.want)
		}
	}
	if r.links["a"].need != needGraft {
		t.Error("what a did not deliver is not left to a session")
	}
}

func TestInSyncCostsFewBytes(t *testing.T) {
	a, b := newReplicator("a", 1, Limits{}), newReplicator("b", 2, Limits{})
	linkUp(start, a, b)
	mustPut(t, a, start, "k")
	pump(t, start, a, b)
	now := run(t, start, 65*time.Second, a, b) // and no beacons any more
	before := a.Stats().BytesSent
	for range 30 * 20 {
		now = now.Add(50 * time.Millisecond)
		a.Tick(now)
		b.Tick(now)
		pump(t, now, a, b)
	}
	st := a.Stats()
	if got := st.BytesSent - before; got > 2*32 {
		t.Errorf("%d bytes in 30 s", got)
	}
	if !a.Links()[0].InSync {
		t.Error("not known to be in sync")
	}
}

// F14, at its lowest level.
func TestF14HLCFarAhead(t *testing.T) {
	r := newReplicator("b", 2, Limits{})
	r.LinkUp(start, "a", RoleDirect)
	e := crdt.NewEncoder()
	near := crdt.HLCAt(start.UnixMilli() + 5_000)
	far := crdt.HLCAt(start.UnixMilli() + 5_001)
	for i, at := range []crdt.HLC{near, far} {
		w := newWriter(crdt.Inc(10 + i))
		ops, err := w.Put(crdt.Write{Key: "k", Kind: crdt.KindRegister, HLC: at})
		if err != nil {
			t.Fatal(err)
		}
		e.Reset(nil)
		appendOp(e, ops[0])
		if err := r.Step(start, "a", e.Bytes()); err != nil {
			t.Fatal(err)
		}
	}
	if st := r.Stats(); r.MaxHLC() != near || st.OpsFarAhead != 1 || st.MaxAheadMs != 5_001 || st.Cells != 2 {
		t.Fatalf("max %s, stats %+v", r.MaxHLC(), st)
	}
}

func FuzzStep(f *testing.F) {
	a := newReplicator("a", 1, Limits{})
	a.LinkUp(start, "b", RoleDirect)
	for i := range 3 {
		mustPut(f, a, start, fmt.Sprint(i))
	}
	for ok := true; ok; {
		var frame []byte
		if frame, ok = a.NextFrame(start, "b", nil, 64); ok {
			f.Add(frame)
		}
	}
	e := crdt.NewEncoder()
	e.Reset(nil)
	appendDots(e, kindIHave, crdt.Dots{{Inc: 1, Lo: 1, Hi: 1<<64 - 1}})
	appendDots(e, kindGraft, crdt.Dots{{Inc: 1, Lo: 1, Hi: 1<<64 - 1}})
	appendBusy(e, 1, 1<<63)
	appendAbort(e, 1, 1)
	appendSession(e, envelope{}, []byte("x"))
	appendIHave(e, crdt.Dots{{Inc: 1, Lo: 1, Hi: 1<<64 - 1}}, true)
	appendPrune(e, []crdt.Inc{1, 2, 1<<64 - 1})
	appendChoke(e, true)
	appendBehind(e)
	appendAsk(e, ask{origin: 7, round: 1, applied: 1 << 60, synced: 1, wide: true})
	appendRows(e, 7, []Ack{{Member: 9, Applied: 1, Synced: 1<<64 - 1}})
	f.Add(e.Bytes())
	f.Fuzz(func(t *testing.T, frame []byte) {
		b := newReplicator("b", 2, Limits{})
		b.LinkUp(start, "a", RoleDirect)
		b.LinkUp(start, "c", RoleDirect)
		_ = b.Step(start, "a", frame)
		b.Tick(start.Add(time.Second))
		for i := 0; i < 100; i++ {
			if _, ok := b.NextFrame(start, "c", nil, 1<<16); !ok {
				break
			}
		}
		_, _ = b.NextFrame(start, "a", nil, 1<<16)
	})
}
