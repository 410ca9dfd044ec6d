package gossip

import (
	"fmt"
	"testing"
	"time"

	"github.com/meshkv/meshkv/crdt"
)

// Puts over 100,000 keys. The difference to replica is what this package costs;
// frames of 64 KiB are drained as they fill.
func BenchmarkPut(b *testing.B) {
	const keys = 100_000
	names := make([]string, keys)
	for i := range names {
		names[i] = fmt.Sprintf("key-%028d", i*7919%keys)
	}
	value := make([]byte, 100)
	b.Run("replica", func(b *testing.B) {
		r := crdt.NewReplica(crdt.State{Inc: 1, Cells: crdt.NewMapCells(), Clock: crdt.NewClock()})
		for i := range keys {
			_, _ = r.Put(crdt.Write{Key: names[i], Kind: crdt.KindRegister, Value: value})
		}
		r.Changes().Reset()
		b.ReportAllocs()
		i := 0
		for b.Loop() {
			i++
			_, _ = r.Put(crdt.Write{Key: names[i%keys], Kind: crdt.KindRegister, Value: value})
			r.Changes().Reset()
		}
	})
	for _, links := range []int{0, 2, 4, 8} {
		for _, busy := range []bool{false, true} {
			if links == 0 && busy {
				continue
			}
			b.Run(fmt.Sprintf("links=%d/busy=%v", links, busy), func(b *testing.B) {
				r := New(Config{Self: "a"}, crdt.State{Inc: 1, Cells: crdt.NewMapCells()}, nil)
				now := time.Unix(1_800_000_000, 0)
				for i := range links {
					r.LinkUp(now, PeerID(fmt.Sprint("b", i)), RoleDirect)
				}
				for i := range keys {
					_, _ = r.Put(now, crdt.Write{Key: names[i], Kind: crdt.KindRegister, Value: value})
					r.Changes().Reset()
				}
				for i := range links {
					for ok := true; ok; {
						_, ok = r.NextFrame(now, PeerID(fmt.Sprint("b", i)), nil, 1<<16)
					}
				}
				b.ReportAllocs()
				i := 0
				for b.Loop() {
					i++
					_, _ = r.Put(now, crdt.Write{Key: names[i%keys], Kind: crdt.KindRegister, Value: value})
					r.Changes().Reset()
					if !busy && i%16 == 0 || busy && i%5000 == 0 {
						b.StopTimer()
						for _, l := range r.order {
							drain(&l.queue)
							l.awake = false
						}
						r.TakeWakes()
						b.StartTimer()
					}
				}
			})
		}
	}
}

// An op that comes over one of 8 tree links and goes on over so many others;
// the rest is lazy. Frames of 16 ops, of 16 origins.
func BenchmarkForward(b *testing.B) {
	const links, perFrame, keys = 8, 16, 100_000
	now := time.Unix(1_800_000_000, 0)
	for _, eager := range []int{0, 1, 7} {
		b.Run(fmt.Sprint("eager=", eager), func(b *testing.B) {
			r := New(Config{Self: "r"}, crdt.State{Inc: 1 << 40, Cells: crdt.NewMapCells()}, nil)
			for i := range links {
				r.LinkUp(now, PeerID(fmt.Sprint("p", i)), RoleTree)
			}
			var writers []writer
			for i := range 16 {
				writers = append(writers, newWriter(crdt.Inc(i+1)))
				for _, l := range r.order[1+eager:] {
					r.tree.touch(crdt.Inc(i+1)).set(l, 0, pruned)
				}
			}
			e := crdt.NewEncoder()
			value := make([]byte, 100)
			buf := make([]byte, 0, 1<<16)
			b.ReportAllocs()
			for i := 0; b.Loop(); i += perFrame {
				b.StopTimer()
				e.Reset(nil)
				for k := range perFrame {
					ops, err := writers[k].Put(crdt.Write{Key: fmt.Sprintf("key-%028d", (i+k)*7919%keys), Kind: crdt.KindRegister, Value: value})
					if err != nil {
						b.Fatal(err)
					}
					writers[k].Changes().Reset()
					appendOp(e, ops[0])
				}
				now = now.Add(3 * time.Millisecond)
				b.StartTimer()
				if err := r.Step(now, "p0", e.Bytes()); err != nil {
					b.Fatal(err)
				}
				r.Changes().Reset()
				r.TakeWakes()
				for _, l := range r.order {
					for ok := true; ok; {
						_, ok = r.NextFrame(now, l.peer, buf[:0], 1<<16)
					}
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/perFrame, "ns/forwarded-op")
		})
	}
}

func BenchmarkStep(b *testing.B) {
	now := time.Unix(1_800_000_000, 0)
	a := New(Config{Self: "a"}, crdt.State{Inc: 1, Cells: crdt.NewMapCells()}, nil)
	r := New(Config{Self: "b"}, crdt.State{Inc: 2, Cells: crdt.NewMapCells()}, nil)
	a.LinkUp(now, "b", RoleDirect)
	for _, p := range []PeerID{"a", "c", "d", "e"} {
		r.LinkUp(now, p, RoleDirect)
	}
	value := make([]byte, 100)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		i++
		if _, err := a.Put(now, crdt.Write{Key: fmt.Sprintf("key-%028d", i%100_000), Kind: crdt.KindRegister, Value: value}); err != nil {
			b.Fatal(err)
		}
		a.Changes().Reset()
		if i%100 == 0 {
			frame, _ := a.NextFrame(now, "b", nil, 1<<16)
			if err := r.Step(now, "a", frame); err != nil {
				b.Fatal(err)
			}
			r.Changes().Reset()
		}
	}
}
