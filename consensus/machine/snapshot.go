package machine

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/cespare/xxhash/v2"

	"github.com/meshkv/meshkv/crdt"
)

// A snapshot is a stream: snapshotMagic, records, and at the end a zero and the 64-bit
// xxhash of all before. A record is its length in 4 bytes, big-endian, and an array
// whose first element is its kind. The first record is the head, the others follow by
// kind and ascending within it. Every entry is in the stream once: in its own record if
// it is live, otherwise in the change that ended it.
const (
	snapshotMagic   = "meshkvSM"
	snapshotVersion = 1
	// maxRecord bounds a record: a result that is kept is the longest.
	maxRecord = MaxResult + 1<<20
)

type recordKind uint64

const (
	recordHead recordKind = iota + 1
	recordEntry
	recordChange
	recordLease
	recordClaim
	recordPool
	recordBlock
	recordClient
	recordResult
)

// Snapshot writes the whole state, for Restore.
func (v *View) Snapshot(w io.Writer) error {
	if _, err := v.stream(w); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	return nil
}

// Digest is a hash of the whole state. It is equal on replicas of this version that
// applied the same log, whether or not they began with a snapshot.
func (v *View) Digest() uint64 {
	sum, _ := v.stream(io.Discard) // which cannot fail
	return sum
}

// A streamer writes records. After the first error it writes nothing.
type streamer struct {
	writer
	out *bufio.Writer
	err error
}

// flush ends a record.
func (st *streamer) flush() bool {
	b := st.Bytes()
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	if st.err == nil {
		_, st.err = st.out.Write(b)
	}
	st.Reset(append(b[:0], 0, 0, 0, 0))
	return st.err == nil
}

func (v *View) stream(to io.Writer) (sum uint64, err error) {
	hash := xxhash.New()
	st := &streamer{writer: writer{crdt.NewEncoder()}, out: bufio.NewWriterSize(io.MultiWriter(hash, to), 64<<10)}
	st.Reset(make([]byte, 4))
	if _, err := st.out.WriteString(snapshotMagic); err != nil {
		return 0, err
	}
	v.s.writeRecords(st)
	if st.err == nil {
		_, st.err = st.out.Write(make([]byte, 4))
	}
	if st.err == nil {
		st.err = st.out.Flush()
	}
	if st.err != nil {
		return 0, st.err
	}
	sum = hash.Sum64()
	_, err = to.Write(binary.BigEndian.AppendUint64(nil, sum))
	return sum, err
}

// records is how many records follow the head.
func (s *state) records() int {
	return s.live.Len() + s.log.Len() + s.leases.Len() + s.held.Len() + s.queued.Len() + s.pools.Len() + s.blocks.Len() +
		s.clients.Len() + s.results
}

func (s *state) writeRecords(st *streamer) {
	st.fields(12, uint64(recordHead), snapshotVersion, s.applied, uint64(s.revision), uint64(s.compacted), uint64(s.seq), uint64(s.hlc),
		uint64(s.token), s.quota, s.bytes, s.forgotten, uint64(s.records()))
	st.flush()
	s.live.Scan(func(e *Entry) bool {
		st.fields(2, uint64(recordEntry))
		st.entry(e)
		return st.flush()
	})
	s.log.Scan(func(c *Change) bool {
		st.fields(6, uint64(recordChange), uint64(c.Revision), uint64(c.Seq), uint64(c.Modified))
		st.Bool(c.Next != nil)
		if c.Prev == nil {
			st.Nil()
		} else {
			st.entry(c.Prev)
		}
		return st.flush()
	})
	s.leases.Scan(func(l *Lease) bool {
		if l.Left == 0 { // the usual one
			st.fields(3, uint64(recordLease), uint64(l.ID), l.TTL)
		} else {
			st.fields(4, uint64(recordLease), uint64(l.ID), l.TTL, l.Left)
		}
		return st.flush()
	})
	for _, t := range [...]*tree[*claim]{s.held, s.queued} {
		t.Scan(func(c *claim) bool {
			st.fields(11, uint64(recordClaim), uint64(c.id.Session), c.id.Request, uint64(c.mode), c.places, c.delay, c.order, uint64(c.token))
			st.Bool(c.delayed)
			st.Str(c.name)
			st.Bin(c.value)
			return st.flush()
		})
	}
	s.pools.Scan(func(p *Pool) bool {
		st.fields(4, uint64(recordPool), p.First, p.Last)
		st.Str(p.Name)
		return st.flush()
	})
	s.blocks.Scan(func(a *Allocation) bool {
		st.fields(7, uint64(recordBlock), a.First, a.Size, uint64(a.Session), uint64(a.Token))
		st.Str(a.Pool)
		st.Str(a.Label)
		return st.flush()
	})
	s.clients.Scan(func(c *client) bool {
		st.fields(4, uint64(recordClient), c.floor, c.used)
		st.Str(c.id)
		return st.flush()
	})
	s.clients.Scan(func(c *client) bool {
		for _, rec := range c.results {
			st.fields(4, uint64(recordResult), rec.number)
			st.Str(c.id)
			st.Bin(rec.result)
			st.flush()
		}
		return st.err == nil
	})
}
