package gossip

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/meshkv/meshkv/crdt"
)

// writer issues ops on its own replica.
type writer struct{ *crdt.Replica }

func newWriter(inc crdt.Inc) writer {
	return writer{crdt.NewReplica(crdt.State{Inc: inc, Cells: crdt.NewMapCells(), Clock: crdt.NewClock()})}
}

func (w writer) put(t interface{ Fatal(...any) }, key, path string) *crdt.Op {
	ops, err := w.Put(crdt.Write{Key: key, Path: path, Kind: crdt.KindMap, HLC: crdt.HLCAt(int64(w.Seq()))})
	if err != nil {
		t.Fatal(err)
	}
	return ops[0]
}

func drain(q *queue) (ops []*crdt.Op) {
	for op := q.peek(); op != nil; op = q.peek() {
		ops = append(ops, op)
		q.pop()
	}
	return ops
}

// Whatever is pushed and popped, a receiver of the popped ops ends as one of
// all ops, in whatever order they come; and the counts hold.
func TestQueueKeepsTheEffect(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		writers := []writer{newWriter(1), newWriter(2)}
		all, got := newWriter(8), newWriter(9)
		var q queue
		var out []*crdt.Op
		pushed := 0
		for range rapid.IntRange(1, 400).Draw(t, "steps") {
			w := writers[rapid.IntRange(0, 1).Draw(t, "writer")]
			key := fmt.Sprintf("k%d", rapid.IntRange(0, 45).Draw(t, "key"))
			var ops []*crdt.Op
			switch rapid.IntRange(0, 9).Draw(t, "step") {
			case 0:
				if op := q.peek(); op != nil {
					out = append(out, op)
					q.pop()
				}
			case 1:
				ops = w.Delete(key, 1)
			case 2:
				var dots []crdt.Dot
				for c := range w.Cells().(*crdt.MapCells).All() {
					dots = append(dots, c.Dot)
				}
				ops = w.Remove(dots[:min(len(dots), 3)], 1)
			default:
				ops = append(ops, w.put(t, key, rapid.SampledFrom([]string{"", "p"}).Draw(t, "path")))
			}
			for _, op := range ops {
				pushed++
				q.push(op)
				all.Apply(op)
				for _, other := range writers {
					other.Apply(op)
				}
			}
		}
		waiting := q.refs
		rest := drain(&q)
		if len(rest) != waiting || q.refs != 0 || q.bytes != 0 || q.len() != 0 || q.keys != nil {
			t.Fatalf("%d ops of %d drained, then %d refs, %d bytes", len(rest), waiting, q.refs, q.bytes)
		}
		out = append(out, rest...)
		if len(out)+int(q.merge) != pushed {
			t.Fatalf("%d sent and %d coalesced of %d", len(out), q.merge, pushed)
		}
		for _, op := range rapid.Permutation(out).Draw(t, "order") {
			got.Apply(op)
		}
		same(t, all, got)
	})
}

func same(t interface{ Fatalf(string, ...any) }, want, got writer) {
	if !want.Clock().Equal(got.Clock()) {
		t.Fatalf("clocks differ")
	}
	if !slices.Equal(want.Pending(), got.Pending()) {
		t.Fatalf("pending %v, want %v", got.Pending(), want.Pending())
	}
	a := slices.Collect(want.Cells().(*crdt.MapCells).All())
	b := slices.Collect(got.Cells().(*crdt.MapCells).All())
	if !slices.Equal(a, b) {
		t.Fatalf("%d cells, want %d", len(b), len(a))
	}
}

func TestQueueCoalescesHotKeys(t *testing.T) {
	w := newWriter(1)
	var q queue
	for i := range 100_000 {
		q.push(w.put(t, fmt.Sprintf("k%d", i%100), ""))
	}
	if q.refs > 100*(1000/maxCoverSpans+2) {
		t.Fatalf("%d ops wait for 100 keys", q.refs)
	}
	for _, op := range drain(&q) {
		if op.Covers.Len() > crdt.MaxCovers || op.Removes.Len() > crdt.MaxRemoves {
			t.Fatalf("an op covers %d and removes %d dots", op.Covers.Len(), op.Removes.Len())
		}
	}
	// One key only: the covers are one span of any length.
	for range 50_000 {
		q.push(w.put(t, "k", ""))
	}
	for i := range 40 {
		q.push(w.put(t, fmt.Sprint(i), "")) // beyond mapAbove at last
	}
	for range 50_000 {
		q.push(w.put(t, "k", ""))
	}
	for _, op := range drain(&q) {
		if op.Covers.Len() > crdt.MaxCovers || op.Removes.Len() > crdt.MaxRemoves {
			t.Fatalf("an op covers %d and removes %d dots", op.Covers.Len(), op.Removes.Len())
		}
	}
}

func TestRing(t *testing.T) {
	g := ring{maxOps: 300, maxBytes: 1 << 20, maxAge: 100}
	w := newWriter(1)
	var ops []*crdt.Op
	for i := range 1000 {
		op := w.put(t, fmt.Sprintf("k%d", i), "")
		if i%10 == 9 { // stands for the one before
			op.Covers = crdt.DotsOf(crdt.Dot{Inc: 1, Seq: op.Dot.Seq - 1})
		} else if i%10 == 8 {
			continue
		}
		ops = append(ops, op)
		g.push(int64(i), op)
	}
	if g.ops.Len() != 300 {
		t.Fatalf("%d ops held", g.ops.Len())
	}
	found, missing := g.find(crdt.Dots{{Inc: 1, Lo: 989, Hi: 990}, {Inc: 1, Lo: 998, Hi: 1005}, {Inc: 2, Lo: 1, Hi: 1 << 62}}, nil)
	var got []uint64
	for _, op := range found {
		got = append(got, op.Dot.Seq)
	}
	if want := []uint64{990, 998, 1000}; !slices.Equal(got, want) {
		t.Fatalf("found %v, want %v", got, want)
	}
	if want := (crdt.Dots{{Inc: 1, Lo: 1001, Hi: 1005}, {Inc: 2, Lo: 1, Hi: 1 << 62}}); !slices.Equal(missing, want) {
		t.Fatalf("missing %v, want %v", missing, want)
	}
	g.expire(1050)
	if g.at(0).at != 950 {
		t.Fatalf("oldest is of %d", g.at(0).at)
	}
	g.maxBytes = g.bytes / 2
	g.push(1050, ops[0])
	if g.bytes > g.maxBytes || g.ops.Len() == 0 {
		t.Fatalf("%d bytes, at most %d", g.bytes, g.maxBytes)
	}
	g.expire(1 << 40)
	if g.ops.Len() != 0 || g.bytes != 0 {
		t.Fatalf("%d ops, %d bytes after all expired", g.ops.Len(), g.bytes)
	}
}

func TestSpans(t *testing.T) {
	span := rapid.Custom(func(t *rapid.T) crdt.Span {
		lo := rapid.Uint64Range(1, 20).Draw(t, "lo")
		return crdt.Span{Inc: crdt.Inc(rapid.Uint64Range(1, 2).Draw(t, "inc")), Lo: lo, Hi: lo + rapid.Uint64Range(0, 4).Draw(t, "more")}
	})
	rapid.Check(t, func(t *rapid.T) {
		a, b := rapid.SliceOfN(span, 0, 8).Draw(t, "a"), rapid.SliceOfN(span, 0, 8).Draw(t, "b")
		var da, db crdt.Dots
		for _, sp := range a {
			da = da.With(sp)
		}
		for _, sp := range b {
			db = db.With(sp)
		}
		if got := dotsOf(slices.Clone(a)); !slices.Equal(got, da) {
			t.Fatalf("dotsOf %v = %v", a, got)
		}
		var rest crdt.Dots
		common := false
		for d := range da.All() {
			if db.Contains(d) {
				common = true
			} else {
				rest = rest.With(crdt.Span{Inc: d.Inc, Lo: d.Seq, Hi: d.Seq})
			}
		}
		if got := minus(da, db); !slices.Equal(got, rest) {
			t.Fatalf("minus %v, want %v", got, rest)
		}
		if overlap(da, db) != common {
			t.Fatalf("overlap %v", !common)
		}
		if size(da) != da.Len() {
			t.Fatalf("size %d", size(da))
		}
	})
	huge := crdt.Dots{{Inc: 1, Lo: 1, Hi: 1<<64 - 1}, {Inc: 2, Lo: 1, Hi: 1<<64 - 1}}
	if got := size(huge); got != 1<<63-1 {
		t.Fatalf("size of everything is %d", got)
	}
}
