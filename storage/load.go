package storage

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"sync"

	"github.com/meshkv/meshkv/crdt"
	bolt "go.etcd.io/bbolt"
)

// chunkPairs is how many stored cells are verified and decoded as one piece of
// work.
const chunkPairs = 512

// readCells is the verified state of the bbolt file, overlaid with what the log
// holds. It takes out of overlay what turns out to be in the file already: puts
// of a checkpoint that was cut short, and drops of cells that are not there.
func readCells(ctx context.Context, db *bolt.DB, overlay *dirty) (State, position, error) {
	st := State{Keyspaces: make(map[string]KeyspaceState)}
	var p position
	err := guarded(db.Path(), func() error {
		return db.View(func(tx *bolt.Tx) (err error) {
			if p, err = readPosition(tx); err != nil {
				return err
			}
			root := tx.Bucket(bucketKeyspaces)
			if root == nil {
				return &DamageError{File: db.Path(), Reason: "no keyspaces bucket"}
			}
			found := 0
			err = root.ForEach(func(name, v []byte) error {
				ks := root.Bucket(name)
				if ks == nil {
					return &DamageError{File: db.Path(), Reason: "keyspace without a bucket"}
				}
				found++
				over := overlay.keyspaces[string(name)]
				if over != nil && over.reset {
					return nil
				}
				state, err := readKeyspace(ctx, ks, string(name), over)
				st.Keyspaces[string(name)] = state
				return err
			})
			// A checkpoint that was cut short may have made more.
			if err == nil && found < p.keyspaces {
				err = &DamageError{File: db.Path(), Reason: fmt.Sprintf("%d keyspaces, should be %d", found, p.keyspaces)}
			}
			return err
		})
	})
	if err != nil {
		return State{}, p, err
	}
	st.NodeID, st.HLCBound = p.nodeID, max(p.hlcBound, overlay.hlcBound)
	for name, over := range overlay.keyspaces {
		if over.gone {
			continue
		}
		ks, ok := st.Keyspaces[name]
		if !ok {
			ks.Clock = crdt.NewClock()
			over.drops = nil
			for _, c := range over.puts {
				ks.Cells = append(ks.Cells, c)
			}
		}
		for inc, en := range over.clock {
			ks.Clock.Set(inc, en)
		}
		ks.Pending = overlayPending(ks.Pending, over.pending)
		st.Keyspaces[name] = ks
	}
	return st, p, nil
}

func overlayPending(have crdt.Dots, over map[crdt.Dot]bool) crdt.Dots {
	if len(over) == 0 {
		return have
	}
	set := make(map[crdt.Dot]struct{}, len(over))
	for d := range have.All() {
		set[d] = struct{}{}
	}
	for d, add := range over {
		if add {
			set[d] = struct{}{}
		} else {
			delete(set, d)
		}
	}
	return dotsOf(set)
}

// readKeyspace reads one keyspace. over may be nil.
func readKeyspace(ctx context.Context, ks *bolt.Bucket, name string, over *dirtyKeyspace) (KeyspaceState, error) {
	path := ks.Tx().DB().Path()
	damage := func(reason string) (KeyspaceState, error) {
		return KeyspaceState{}, &DamageError{File: path, Reason: reason}
	}
	want, ok := readTotals(ks, name)
	if !ok {
		return damage("totals of a keyspace fail their checksum")
	}
	cells, clock, pending := ks.Bucket(bucketCells), ks.Bucket(bucketClock), ks.Bucket(bucketPending)
	if cells == nil || clock == nil || pending == nil {
		return damage("a keyspace lacks a bucket")
	}
	st := KeyspaceState{Clock: crdt.NewClock()}
	var got totals

	dec := crdt.NewDecoder()
	sum := checksumContext(name, bucketClock)
	err := clock.ForEach(func(k, v []byte) error {
		body, ok := unstamp(sum, k, v)
		if !ok {
			return &DamageError{File: path, Reason: "clock entry fails its checksum"}
		}
		got.clock.add(elementHash(k, v))
		dec.Reset(body)
		inc, en, err := dec.Entry()
		if err != nil || !bytes.Equal(incKey(nil, inc), k) {
			return &DamageError{File: path, Reason: "malformed clock entry"}
		}
		st.Clock.Set(inc, en)
		return nil
	})
	if err != nil {
		return KeyspaceState{}, err
	}
	sum = checksumContext(name, bucketPending)
	set := make(map[crdt.Dot]struct{})
	err = pending.ForEach(func(k, v []byte) error {
		if _, ok := unstamp(sum, k, v); !ok || len(k) != 16 {
			return &DamageError{File: path, Reason: "pending death fails its checksum"}
		}
		got.pending.add(elementHash(k, v))
		set[keyDot(k)] = struct{}{}
		return nil
	})
	if err != nil {
		return KeyspaceState{}, err
	}
	st.Pending = dotsOf(set)

	r := cellReader{name: name, path: path, over: over, context: checksumContext(name, bucketCells)}
	if got.cells, err = r.read(ctx, cells, want.cells.count); err != nil {
		return KeyspaceState{}, err
	}
	if got != want {
		return damage(fmt.Sprintf("elements are missing or too many: %v, should be %v", got, want))
	}
	st.Cells = r.cells
	return st, nil
}

// cellReader verifies and decodes the cells of one keyspace: one goroutine walks
// the pages, the others do the work.
type cellReader struct {
	name    string
	path    string
	context uint32
	over    *dirtyKeyspace // nil if the log has nothing of the keyspace

	mu      sync.Mutex // protects the fields below
	cells   []*crdt.Cell
	total   total
	present []crdt.Dot // of over, and found in the file
	err     error
}

type pair struct{ k, v []byte }

func (r *cellReader) read(ctx context.Context, bucket *bolt.Bucket, count uint64) (total, error) {
	if count > uint64(bucket.Tx().Size())/16 {
		return total{}, &DamageError{File: r.path, Reason: "more cells than the file has room for"}
	}
	var dropped map[crdt.Dot]struct{}
	if r.over != nil {
		dropped = make(map[crdt.Dot]struct{}, len(r.over.drops))
		for _, d := range r.over.drops {
			dropped[d] = struct{}{}
		}
		count += uint64(len(r.over.puts))
	}
	r.cells = make([]*crdt.Cell, 0, count)

	work := make(chan []pair, 4*runtime.GOMAXPROCS(0))
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			dec := crdt.NewDecoder()
			for pairs := range work {
				err := guarded(r.path, func() error { return r.decode(dec, pairs, dropped) })
				if err != nil {
					r.fail(err)
				}
			}
		})
	}
	walkErr := func() error {
		defer wg.Wait()
		defer close(work) // also when a damaged page makes the walk panic
		return r.walk(ctx, bucket, work)
	}()
	if r.err != nil {
		return total{}, r.err
	}
	if walkErr != nil {
		return total{}, walkErr
	}
	if r.over != nil {
		r.settle()
	}
	return r.total, nil
}

// walk hands out every pair, in chunks, and checks that keys ascend, so that a
// damaged branch page cannot lead in circles.
func (r *cellReader) walk(ctx context.Context, bucket *bolt.Bucket, work chan<- []pair) error {
	chunk := make([]pair, 0, chunkPairs)
	c := bucket.Cursor()
	var last []byte
	for k, v := c.First(); k != nil; k, v = c.Next() {
		if last != nil && bytes.Compare(last, k) >= 0 {
			return &DamageError{File: r.path, Reason: "keys out of order"}
		}
		last = k
		if chunk = append(chunk, pair{k, v}); len(chunk) == chunkPairs {
			if err := ctx.Err(); err != nil {
				return err
			}
			work <- chunk
			chunk = make([]pair, 0, chunkPairs)
		}
	}
	work <- chunk
	return nil
}

func (r *cellReader) decode(dec *crdt.Decoder, pairs []pair, dropped map[crdt.Dot]struct{}) error {
	cells := make([]*crdt.Cell, 0, len(pairs))
	var sum total
	var present []crdt.Dot
	for _, p := range pairs {
		body, ok := unstamp(r.context, p.k, p.v)
		if !ok || len(p.k) != 16 {
			return &DamageError{File: r.path, Reason: "cell fails its checksum"}
		}
		sum.add(elementHash(p.k, p.v))
		dot := keyDot(p.k)
		if r.over != nil {
			_, drop := dropped[dot]
			_, put := r.over.puts[dot]
			if drop || put {
				present = append(present, dot)
			}
			if drop {
				continue
			}
		}
		dec.Reset(body)
		c, err := dec.Cell()
		if err != nil || c.Dot != dot {
			return &DamageError{File: r.path, Reason: "malformed cell", Cause: err}
		}
		cells = append(cells, c)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cells = append(r.cells, cells...)
	r.present = append(r.present, present...)
	r.total.join(sum)
	return nil
}

func (r *cellReader) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err == nil {
		r.err = err
	}
}

// settle adds the puts of the log, and leaves in over what still differs from
// the file.
func (r *cellReader) settle() {
	var drops []crdt.Dot
	for _, d := range r.present {
		if _, put := r.over.puts[d]; put {
			delete(r.over.puts, d)
			continue
		}
		drops = append(drops, d)
	}
	r.over.drops = drops
	for _, c := range r.over.puts {
		r.cells = append(r.cells, c)
	}
}
