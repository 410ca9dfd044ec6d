package keyspace

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/meshkv/meshkv/crdt"
	"github.com/meshkv/meshkv/gossip"
	"github.com/meshkv/meshkv/storage"
)

const (
	benchKeyBytes   = 32
	benchValueBytes = 100
)

func benchKey(i int) string { return fmt.Sprintf("endpoint/%023d", i) }

// heapInUse is what is reachable.
func heapInUse() int64 {
	runtime.GC()
	runtime.GC() // what finalizers and pools held
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// heapOf is the heap that what fill returns keeps, a key and beyond its own
// bytes, of which the first is reported.
func heapOf(b *testing.B, n int, fill func() (keep any)) {
	b.Helper()
	for b.Loop() {
		before := heapInUse()
		keep := fill()
		b.ReportMetric(float64(heapInUse()-before)/float64(n)-benchKeyBytes-benchValueBytes, "B/key")
		runtime.KeepAlive(keep)
	}
}

// BenchmarkHeap is the heap that a key of 32 B with a value of 100 B takes beyond
// these, in a keyspace of a million keys, by the way in which they came.
func BenchmarkHeap(b *testing.B) {
	const n = 1_000_000
	now := time.Unix(1_800_000_000, 0)
	b.Run("puts", func(b *testing.B) {
		heapOf(b, n, func() any { return putAll(b, n) })
	})
	b.Run("overwrites", func(b *testing.B) {
		heapOf(b, n, func() any {
			k := putAll(b, n)
			value := make([]byte, benchValueBytes)
			for i := range n { // in an order that is none
				if _, err := k.Put(context.Background(), benchKey(i*7919%n), value, nil); err != nil {
					b.Fatal(err)
				}
			}
			return k
		})
	})
	b.Run("ops", func(b *testing.B) {
		heapOf(b, n, func() any {
			from, to := openEmpty(testEnv()), openEmpty(peerEnv())
			p := newPipe(from, to)
			p.link()
			value := make([]byte, benchValueBytes)
			for i := range n {
				if _, err := from.Put(context.Background(), benchKey(i), value, nil); err != nil {
					b.Fatal(err)
				}
				if i%1000 == 0 {
					p.move(b)
				}
			}
			p.tick(2 * time.Minute) // the ops that were kept for grafts go
			p.move(b)
			if !p.equal(b) {
				b.Fatal("ops are missing")
			}
			return to
		})
	})
	b.Run("session", func(b *testing.B) {
		heapOf(b, n, func() any {
			from, to := putAll(b, n), openEmpty(peerEnv())
			newPipe(from, to).join(b)
			return to
		})
	})
	b.Run("restart", func(b *testing.B) {
		heapOf(b, n, func() any {
			return Open("ks", testEnv(), storedState(b, n), now)
		})
	})
}

// putAll is a keyspace of n keys.
func putAll(tb testing.TB, n int) *Keyspace {
	tb.Helper()
	k := openEmpty(testEnv())
	value := bytes.Repeat([]byte{'v'}, benchValueBytes)
	for i := range n {
		if _, err := k.Put(context.Background(), benchKey(i), value, nil); err != nil {
			tb.Fatal(err)
		}
	}
	return k
}

// storedState is what a store gives back with n keys: cells that were decoded.
func storedState(tb testing.TB, n int) storage.KeyspaceState {
	tb.Helper()
	st := storage.KeyspaceState{Clock: crdt.NewClock()}
	enc, dec := crdt.NewEncoder(), crdt.NewDecoder()
	for i := range n {
		enc.Reset(enc.Bytes()[:0])
		enc.Cell(&crdt.Cell{
			Key: benchKey(i), Value: make([]byte, benchValueBytes), Kind: crdt.KindRegister,
			HLC: crdt.HLCAt(1_700_000_000_000), Dot: crdt.Dot{Inc: testInc + 1, Seq: uint64(i) + 1},
		})
		dec.Reset(enc.Bytes())
		c, err := dec.Cell()
		if err != nil {
			tb.Fatal(err)
		}
		st.Cells = append(st.Cells, c)
	}
	st.Clock.Add(crdt.Span{Inc: testInc + 1, Lo: 1, Hi: uint64(n)})
	return st
}

func peerEnv() *Env {
	env := testEnv()
	env.Name, env.Inc, env.Self = "n2", testInc+1, "n2/2"
	env.Owners.Set(env.Inc, Owner{Name: "n2"})
	return env
}

// A pipe moves frames between two keyspaces, without delay or loss, in steps of
// virtual time.
type pipe struct {
	sides [2]*Keyspace
	now   time.Time
	bytes int
}

func newPipe(a, b *Keyspace) *pipe {
	return &pipe{sides: [2]*Keyspace{a, b}, now: time.Now()}
}

func (p *pipe) peer(i int) gossip.PeerID { return p.sides[1-i].env.Self }

func (p *pipe) link() {
	for i, k := range p.sides {
		k.LinkUp(p.now, p.peer(i), gossip.RoleDirect)
	}
}

// move carries all frames that are ready.
func (p *pipe) move(tb testing.TB) {
	tb.Helper()
	var buf []byte
	for moved := true; moved; {
		moved = false
		for i, k := range p.sides {
			frame, ok := k.NextFrame(p.now, p.peer(i), buf[:0], 64<<10)
			if !ok {
				continue
			}
			moved = true
			p.bytes += len(frame)
			if err := p.sides[1-i].Step(p.now, k.env.Self, frame); err != nil {
				tb.Fatal(err)
			}
			buf = frame
		}
	}
}

// tick passes time.
func (p *pipe) tick(d time.Duration) {
	p.now = p.now.Add(d)
	for _, k := range p.sides {
		k.Tick(p.now)
	}
}

func (p *pipe) equal(tb testing.TB) bool {
	tb.Helper()
	a, errA := p.sides[0].Digest(context.Background())
	b, errB := p.sides[1].Digest(context.Background())
	if errA != nil || errB != nil {
		tb.Fatal(errA, errB)
	}
	return a == b
}

// join links the two sides and moves frames until they hold the same.
func (p *pipe) join(tb testing.TB) {
	tb.Helper()
	p.link()
	for range 1000 {
		p.move(tb)
		if p.equal(tb) {
			return
		}
		p.tick(50 * time.Millisecond)
	}
	tb.Fatal("not equal after 50 s")
}
