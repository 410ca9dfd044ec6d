package gossip

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/meshkv/meshkv/crdt"
)

// mustUpdate makes a batch at r.
func mustUpdate(t testing.TB, r *Replicator, now time.Time, edit func(*crdt.Draft) error) crdt.Dot {
	t.Helper()
	d, changed, err := r.Update(now, crdt.HLCAt(now.UnixMilli()), func(*crdt.Cell) bool { return true }, edit)
	if err != nil || !changed {
		t.Fatalf("%v, %v", changed, err)
	}
	return d
}

// addAll adds elements to a set.
func addAll(key string, elements ...string) func(*crdt.Draft) error {
	return func(d *crdt.Draft) error {
		for _, e := range elements {
			if err := d.SetAdd(key, e, crdt.Lifetime{}); err != nil {
				return err
			}
		}
		return nil
	}
}

func elements(r *Replicator, key string) (out []string) {
	for c := range crdt.Elements(r.Replica().Cells().Ascend(key, "")) {
		out = append(out, c.Path)
	}
	return out
}

// A batch is on its way as one op, pushed or asked for, and is there as a whole or not at all.
func TestBatchArrivesAsAWhole(t *testing.T) {
	a, b := newReplicator("a", 1, Limits{}), newReplicator("b", 2, Limits{})
	a.LinkUp(start, "b", RoleDirect)
	b.LinkUp(start, "a", RoleDirect)
	pump(t, start, a, b)
	ops := b.Stats().OpsReceived
	last := mustUpdate(t, a, start, addAll("k", "x", "y", "z"))
	pump(t, start, a, b)
	if got := elements(b, "k"); !slices.Equal(got, []string{"x", "y", "z"}) {
		t.Fatalf("%q", got)
	}
	if n := b.Stats().OpsReceived - ops; n != 1 {
		t.Errorf("%d ops", n)
	}
	// Any of its dots brings all of it.
	for seq := last.Seq - 2; seq <= last.Seq; seq++ {
		found, missing := a.ring.find(crdt.DotsOf(crdt.Dot{Inc: 1, Seq: seq}), nil)
		if len(found) != 1 || len(found[0].More) != 2 || len(missing) > 0 {
			t.Errorf("dot %d: %d ops, missing %v", seq, len(found), missing)
		}
	}
	_, changed, err := a.Update(start, 1, func(*crdt.Cell) bool { return true }, func(*crdt.Draft) error { return nil })
	if changed || err != nil {
		t.Errorf("a batch of nothing: %v, %v", changed, err)
	}
	before := a.Replica().Seq()
	failed := errors.New("failed")
	_, _, err = a.Update(start, 1, func(*crdt.Cell) bool { return true }, func(d *crdt.Draft) error {
		return errors.Join(addAll("k", "w")(d), failed)
	})
	if !errors.Is(err, failed) || a.Replica().Seq() != before || len(elements(a, "k")) != 3 {
		t.Errorf("a batch that was given up: %v", err)
	}
}

// The largest batch passes through a frame.
func TestLargestBatch(t *testing.T) {
	a, b := newReplicator("a", 1, Limits{}), newReplicator("b", 2, Limits{})
	a.LinkUp(start, "b", RoleDirect)
	b.LinkUp(start, "a", RoleDirect)
	pump(t, start, a, b)
	for round := range 3 {
		mustUpdate(t, a, start, func(d *crdt.Draft) error {
			for i := range crdt.MaxBatchCells {
				name := fmt.Sprintf("%0100d", i)
				if err := d.MapPut(name, []string{name}, []byte{byte(round)}, crdt.Lifetime{}); err != nil {
					return err
				}
			}
			return nil
		})
	}
	now := start
	for range 20 { // the last is larger than what is pushed at once
		now = now.Add(time.Second)
		a.Tick(now)
		b.Tick(now)
		pump(t, now, a, b)
	}
	if n := b.Replica().Cells().Len(); n != crdt.MaxBatchCells {
		t.Fatalf("%d cells", n)
	}
	ad, ac := a.Root()
	if bd, bc := b.Root(); ad != bd || ac != bc {
		t.Error("the roots differ")
	}
	if b.Stats().OpsReceived == 0 {
		t.Error("only sessions brought them")
	}
}

// Adding one element to a large set sends little to each node, and a few that
// differ cost little to find.
func TestLargeSetCostsItsChanges(t *testing.T) {
	if testing.Short() {
		t.Skip("a large set")
	}
	a, b := newReplicator("a", 1, Limits{}), newReplicator("b", 2, Limits{})
	const size = 2000
	for i := 0; i < size; i += 500 {
		mustUpdate(t, a, start, func(d *crdt.Draft) error {
			for j := range 500 {
				if err := d.SetAdd("k", fmt.Sprintf("element-%06d", i+j), crdt.Lifetime{}); err != nil {
					return err
				}
			}
			return nil
		})
	}
	now := start
	a.LinkUp(now, "b", RoleDirect)
	b.LinkUp(now, "a", RoleDirect)
	settle := func() (bytes int) {
		for range 10 {
			now = now.Add(time.Second)
			a.Tick(now)
			b.Tick(now)
			for moved := true; moved; {
				moved = false
				for _, p := range [][2]*Replicator{{a, b}, {b, a}} {
					if frame, ok := p[0].NextFrame(now, p[1].cfg.Self, nil, 64<<10); ok {
						moved = true
						bytes += len(frame)
						if err := p[1].Step(now, p[0].cfg.Self, frame); err != nil {
							t.Fatal(err)
						}
					}
				}
			}
		}
		return bytes
	}
	settle()
	if n := b.Replica().Cells().Len(); n != size {
		t.Fatalf("%d elements", n)
	}
	mustUpdate(t, a, now, addAll("k", "one more"))
	frame, ok := a.NextFrame(now, "b", nil, 64<<10)
	if !ok || len(frame) > 300 {
		t.Errorf("one more element sends %d bytes", len(frame))
	}
	if err := b.Step(now, "a", frame); err != nil {
		t.Fatal(err)
	}
	settle()
	a.LinkDown("b")
	b.LinkDown("a")
	for i := range 10 {
		mustUpdate(t, a, now, addAll("k", fmt.Sprint("missed ", i)))
	}
	a.LinkUp(now, "b", RoleDirect)
	b.LinkUp(now, "a", RoleDirect)
	if bytes := settle(); bytes > 64<<10 || b.Replica().Cells().Len() != size+11 {
		t.Errorf("10 elements cost %d bytes; %d are there", bytes, b.Replica().Cells().Len())
	}
}
