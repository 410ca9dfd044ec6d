package storage

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/meshkv/meshkv/crdt"
	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// A checkpoint moves a dirty set into the bbolt file, in transactions of bounded
// size. Between them the file holds part of the set; that is harmless, because
// its position still says that the log must be replayed from where the set
// began, and replay overrules every dot that the set names. The last transaction
// moves the position.
type checkpoint struct {
	db      *bolt.DB
	set     *dirty
	end     position // of the file, when all is in it; keyspaces is counted here
	pause   func(context.Context) error
	enc     *crdt.Encoder
	key     []byte
	written uint64 // elements put or deleted
	jammed  bool   // a transaction is open for ever; db must not be closed
}

// Bounds of one transaction of a checkpoint.
const (
	maxTxChanges = 4096
	maxTxBytes   = 2 << 20
)

// run returns with the error of ctx if it was done between two transactions.
func (c *checkpoint) run(ctx context.Context) error {
	c.enc = crdt.NewEncoder()
	names := slices.Sorted(maps.Keys(c.set.keyspaces))
	for _, name := range names {
		set := c.set.keyspaces[name]
		if set.reset {
			if err := c.update(func(tx *bolt.Tx) error { return deleteKeyspace(tx, name) }); err != nil {
				return err
			}
			if err := c.pause(ctx); err != nil {
				return err
			}
		}
		changes := set.changes()
		for len(changes) > 0 {
			var err error
			if changes, err = c.writeCells(name, changes); err != nil {
				return err
			}
			if err := c.pause(ctx); err != nil {
				return err
			}
		}
	}
	return c.update(func(tx *bolt.Tx) error {
		for _, name := range names {
			if c.set.keyspaces[name].gone {
				continue
			}
			if err := c.writeRest(tx, name); err != nil {
				return err
			}
		}
		c.end.keyspaces = 0
		root := tx.Bucket(bucketKeyspaces)
		if err := root.ForEachBucket(func([]byte) error { c.end.keyspaces++; return nil }); err != nil {
			return err
		}
		return putPosition(tx.Bucket(bucketMeta), c.end)
	})
}

// update is db.Update for pages that were damaged after they were verified: what
// panics or faults fails as a DamageError. DB.Update itself will not do. When fn or
// the commit panics it looks for the free pages of the whole file, in a goroutine
// whose own panic over the same damage nobody can recover; Rollback does not.
func (c *checkpoint) update(fn func(*bolt.Tx) error) error {
	path := c.db.Path()
	var tx *bolt.Tx
	c.jammed = true // until bbolt has let go of its locks
	err := guarded(path, func() (err error) {
		tx, err = c.db.Begin(true)
		c.jammed = err == nil
		return err
	})
	if err != nil {
		return err
	}
	err = guarded(path, func() error {
		if err := fn(tx); err != nil {
			return err
		}
		return tx.Commit()
	})
	if err == nil {
		c.jammed = false
		return nil
	}
	undone := guarded(path, tx.Rollback)
	if errors.Is(undone, bolterrors.ErrTxClosed) { // Commit has rolled back
		undone = nil
	}
	c.jammed = undone != nil
	return errors.Join(err, undone)
}

// keyspace is the bucket of a keyspace, made on first use, and its totals.
func keyspace(tx *bolt.Tx, name string) (*bolt.Bucket, totals, error) {
	root := tx.Bucket(bucketKeyspaces)
	if ks := root.Bucket([]byte(name)); ks != nil {
		t, ok := readTotals(ks, name)
		if !ok {
			return nil, t, &DamageError{File: tx.DB().Path(), Reason: "totals of a keyspace fail their checksum"}
		}
		return ks, t, nil
	}
	ks, err := root.CreateBucket([]byte(name))
	if err != nil {
		return nil, totals{}, err
	}
	for _, b := range [][]byte{bucketCells, bucketClock, bucketPending} {
		if _, err := ks.CreateBucket(b); err != nil {
			return nil, totals{}, err
		}
	}
	return ks, totals{}, nil
}

// deleteKeyspace takes the bucket of a keyspace out of the file, if it is there,
// and out of the number of keyspaces that a reader must find.
func deleteKeyspace(tx *bolt.Tx, name string) error {
	err := tx.Bucket(bucketKeyspaces).DeleteBucket([]byte(name))
	if errors.Is(err, bolterrors.ErrBucketNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	p, err := readPosition(tx)
	if err != nil {
		return err
	}
	p.keyspaces = max(p.keyspaces-1, 0) // one of a checkpoint that was cut short is not in it
	return putPosition(tx.Bucket(bucketMeta), p)
}

// writeCells writes as many changes as fit one transaction and returns the rest.
func (c *checkpoint) writeCells(name string, changes []cellChange) (rest []cellChange, err error) {
	rest = changes
	err = c.update(func(tx *bolt.Tx) error {
		ks, t, err := keyspace(tx, name)
		if err != nil {
			return err
		}
		cells := ks.Bucket(bucketCells)
		cells.FillPercent = 0.9 // most come in ascending order
		p := pairs{bucket: cells, cursor: cells.Cursor(), context: checksumContext(name, bucketCells), total: &t.cells}
		p.last, _ = p.cursor.Last()
		p.last = append([]byte{}, p.last...) // empty: whatever comes is new
		c.enc.Reset(nil)                     // bbolt keeps the values until the transaction ends
		n := 0
		for n < len(rest) && n < maxTxChanges && c.enc.Len() < maxTxBytes {
			ch := rest[n]
			n++
			c.key = dotKey(c.key[:0], ch.dot)
			if ch.cell == nil {
				err = p.remove(c.key)
			} else {
				start := c.enc.Len()
				c.enc.Raw([]byte{0, 0, 0, 0})
				c.enc.Cell(ch.cell)
				err = p.put(c.key, c.enc.Bytes()[start:])
			}
			if err != nil {
				return err
			}
		}
		rest = rest[n:]
		c.written += uint64(n)
		return putTotals(ks, name, t)
	})
	return rest, err
}

// writeRest writes the clock and the pending deaths of a keyspace.
func (c *checkpoint) writeRest(tx *bolt.Tx, name string) error {
	ks, t, err := keyspace(tx, name)
	if err != nil {
		return err
	}
	set := c.set.keyspaces[name]
	clock := ks.Bucket(bucketClock)
	p := pairs{bucket: clock, cursor: clock.Cursor(), context: checksumContext(name, bucketClock), total: &t.clock}
	for _, inc := range slices.Sorted(maps.Keys(set.clock)) {
		en := set.clock[inc]
		c.key = incKey(c.key[:0], inc)
		if knowsNothing(en) {
			err = p.remove(c.key)
		} else {
			c.enc.Reset(make([]byte, 4, 64))
			c.enc.Entry(inc, en)
			err = p.put(c.key, c.enc.Bytes())
		}
		if err != nil {
			return err
		}
	}
	pending := ks.Bucket(bucketPending)
	p = pairs{bucket: pending, cursor: pending.Cursor(), context: checksumContext(name, bucketPending), total: &t.pending}
	for _, dot := range slices.SortedFunc(maps.Keys(set.pending), crdt.Dot.Compare) {
		c.key = dotKey(c.key[:0], dot)
		if set.pending[dot] {
			err = p.put(c.key, make([]byte, 4))
		} else {
			err = p.remove(c.key)
		}
		if err != nil {
			return err
		}
	}
	c.written += uint64(len(set.clock) + len(set.pending))
	return putTotals(ks, name, t)
}

func knowsNothing(e crdt.Entry) bool {
	return e.Prefix == 0 && len(e.Islands) == 0 && !e.Closed && !e.Sealed
}

// pairs writes checksummed pairs into one bucket and keeps its total.
type pairs struct {
	bucket  *bolt.Bucket
	cursor  *bolt.Cursor
	context uint32
	total   *total
	last    []byte // no key in the bucket is above it; nil if not known
}

// put stores value, whose first 4 bytes are room for the checksum and which must
// stay as it is until the transaction ends.
func (p *pairs) put(key, value []byte) error {
	if p.last != nil && bytes.Compare(key, p.last) > 0 {
		p.last = append(p.last[:0], key...) // certainly new: no need to look
	} else if k, old := p.cursor.Seek(key); bytes.Equal(k, key) {
		p.total.sub(elementHash(key, old))
	}
	stamp(p.context, key, value)
	p.total.add(elementHash(key, value))
	return p.bucket.Put(key, value)
}

// remove deletes the pair, if it is there.
func (p *pairs) remove(key []byte) error {
	k, old := p.cursor.Seek(key)
	if !bytes.Equal(k, key) {
		return nil
	}
	p.total.sub(elementHash(key, old))
	return p.cursor.Delete()
}
