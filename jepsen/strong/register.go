//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/meshkv/meshkv/client"
)

const (
	opTimeout    = time.Second
	keyOps       = 96 // operations on a key before it is left
	keyUnknown   = 6  // unknown outcomes on a key before it is left: each doubles the search
	groupWorkers = 4
)

// A group is workers that share a key and go on to the next together.
type group struct {
	id int

	mu      sync.Mutex // protects the fields below
	key     int
	ops     int
	unknown int
}

// next is the key of the next operation.
func (g *group) next() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ops >= keyOps || g.unknown >= keyUnknown {
		g.key, g.ops, g.unknown = g.key+1, 0, 0
	}
	g.ops++
	return fmt.Sprintf("r/%d/%d", g.id, g.key)
}

func (g *group) noteUnknown() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.unknown++
}

// A seen is a value and its version, as a worker met it last.
type seen struct {
	key, value string
	version    client.Version
}

// A registers is the workload of reads and conditional writes.
type registers struct {
	c        *cluster
	keyspace string
	history  *history
	writes   *writes
}

// run works until ctx ends.
func (w *registers) run(ctx context.Context, groups int, seed uint64) error {
	var handles []client.Strong
	for _, s := range w.c.nodes {
		h, err := s.client.Strong(ctx, w.keyspace)
		if err != nil {
			return err
		}
		handles = append(handles, h)
	}
	var wg sync.WaitGroup
	for i := range groups {
		g := &group{id: i}
		for j := range groupWorkers {
			id := i*groupWorkers + j
			rng := rand.New(rand.NewPCG(seed, uint64(1000+id)))
			wg.Go(func() { w.worker(ctx, g, id, handles, rng) })
		}
	}
	wg.Wait()
	return nil
}

func (w *registers) worker(ctx context.Context, g *group, id int, handles []client.Strong, rng *rand.Rand) {
	var last seen
	for n := 0; ctx.Err() == nil; n++ {
		key := g.next()
		in := input{kind: kind(rng.IntN(int(kinds)))}
		if rng.IntN(3) == 0 {
			in.kind = get
		}
		if last.key != key {
			last = seen{}
		}
		switch in.kind {
		case swap, swapTxn, removeIfSame:
			if last.value == "" {
				in.kind = get
			} else {
				in.expect = last.value
			}
		}
		switch in.kind {
		case put, create, swap, swapTxn:
			in.value = fmt.Sprintf("%d.%d", id, n)
		}
		if w.do(ctx, handles[rng.IntN(len(handles))], key, id, in, &last) {
			g.noteUnknown()
		}
		pause(ctx, time.Duration(5+rng.IntN(40))*time.Millisecond)
	}
}

// do carries out one operation, and reports whether its outcome is unknown. The end of the
// workload does not cut it short.
func (w *registers) do(ctx context.Context, h client.Strong, key string, id int, in input, last *seen) bool {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), opTimeout)
	defer cancel()
	if in.kind != get {
		w.writes.tried(key, in.value)
	}
	var out output
	var version client.Version
	var err error
	call := w.history.now()
	switch in.kind {
	case get:
		var e client.Entry
		e, err = h.Get(ctx, key, nil)
		if errors.Is(err, client.ErrNotFound) {
			err = nil
		}
		out.value, version = string(e.Value), e.Version
	case put:
		version, err = h.Put(ctx, key, []byte(in.value), nil)
	case create:
		version, err = h.Put(ctx, key, []byte(in.value), &client.PutOptions{IfAbsent: true})
	case swap:
		version, err = h.Put(ctx, key, []byte(in.value), &client.PutOptions{IfVersion: last.version})
	case swapTxn:
		var r client.TxnResult
		r, err = h.Txn(ctx, &client.Txn{
			Compares: []client.Compare{{Key: key, Target: client.TargetMod, Relation: client.Equal, Number: last.version.Seq}},
			Then:     []client.TxnOp{{Put: &client.TxnPut{Key: key, Value: []byte(in.value)}}},
		})
		if err == nil && !r.Succeeded {
			err = client.ErrConflict
		}
		version = client.Version{Seq: r.Revision}
	case remove, removeIfSame:
		var o client.DeleteOptions
		if in.kind == removeIfSame {
			o.IfVersion = last.version
		}
		var d client.Deletion
		d, err = h.Delete(ctx, key, &o)
		out.removed, version = d.Deleted, d.Version
	}
	switch {
	case err == nil:
		out.revision = version.Seq
		w.history.count(in.kind, "ok")
	case errors.Is(err, client.ErrConflict):
		out.conflict = true
		w.history.count(in.kind, "conflict")
	case in.kind == get, notApplied(err):
		w.history.count(in.kind, "fail")
		return false
	default:
		out.unknown = true
		w.history.count(in.kind, "unknown")
	}
	w.history.add(id, key, in, out, call)
	if err == nil {
		switch in.kind {
		case get:
			*last = seen{key, out.value, version}
		case put, create, swap, swapTxn:
			*last = seen{key, in.value, version}
			w.writes.applied(change{version.Seq, key, in.value})
		default:
			*last = seen{}
			if out.removed {
				w.writes.applied(change{version.Seq, key, ""})
			}
		}
	}
	return out.unknown
}

// notApplied reports whether a write that ended with err has certainly no effect, ever.
func notApplied(err error) bool {
	if errors.Is(err, client.ErrUnknownOutcome) {
		return false
	}
	for _, target := range [...]error{client.ErrUnavailable, client.ErrNoQuorum, client.ErrOverloaded, client.ErrDraining, client.ErrJoining} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}
