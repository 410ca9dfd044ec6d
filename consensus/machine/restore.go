package machine

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/cespare/xxhash/v2"

	"github.com/meshkv/meshkv/crdt"
)

// Restore replaces the state by that of a snapshot, whose digest it has afterwards. On
// an error m is as it was: ErrSnapshot, ErrUnknownVersion, or the one of in. It reads no
// more from in than what belongs to the snapshot, but for what it buffers.
func (m *Machine) Restore(in io.Reader) error {
	rs := restorer{state: newState(), in: bufio.NewReaderSize(in, 64<<10), hash: xxhash.New(), puts: map[Seq]*Entry{}}
	if err := rs.run(); err != nil {
		return fmt.Errorf("read snapshot: %w", err)
	}
	m.state, m.view = rs.state, nil
	return nil
}

// A restorer rebuilds a state from records.
type restorer struct {
	state
	in    *bufio.Reader
	hash  *xxhash.Digest
	puts  map[Seq]*Entry // by the change that put them
	nexts []*Change      // those that put something
	total uint64         // bytes, as the head has them
}

func (rs *restorer) read(b []byte) error {
	_, err := io.ReadFull(rs.in, b)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return ErrSnapshot
	}
	_, _ = rs.hash.Write(b) // it never fails
	return err
}

func (rs *restorer) run() error {
	magic := make([]byte, len(snapshotMagic))
	if err := rs.read(magic); err != nil {
		return err
	}
	if string(magic) != snapshotMagic {
		return ErrSnapshot
	}
	expected := uint64(0)
	var length, sum [8]byte
	var buf []byte
	for n := uint64(0); ; n++ {
		if err := rs.read(length[:4]); err != nil {
			return err
		}
		size := int(binary.BigEndian.Uint32(length[:4]))
		if size == 0 {
			break
		}
		if size > maxRecord {
			return ErrSnapshot
		}
		if cap(buf) < size {
			buf = make([]byte, size)
		}
		if err := rs.read(buf[:size]); err != nil {
			return err
		}
		r := newReader(buf[:size])
		if n == 0 {
			expected = rs.head(r)
		} else {
			rs.record(r)
			r.check(n <= expected)
		}
		if r.end(); r.err != nil {
			return damaged(r.err)
		}
	}
	want := rs.hash.Sum64()
	if err := rs.read(sum[:]); err != nil {
		return err
	}
	if binary.BigEndian.Uint64(sum[:]) != want || uint64(rs.records()) != expected {
		return ErrSnapshot
	}
	return rs.finish()
}

// damaged turns the error of a reader into one of a snapshot.
func damaged(err error) error {
	if errors.Is(err, ErrMalformed) {
		return ErrSnapshot
	}
	return err
}

// head reads the first record and returns how many follow.
func (rs *restorer) head(r *reader) uint64 {
	n := r.array(64) // of any version
	r.check(recordKind(r.uint()) == recordHead)
	if version := r.uint(); r.err == nil && version != snapshotVersion {
		r.fail(ErrUnknownVersion)
	}
	r.check(n == 12)
	rs.applied, rs.revision, rs.compacted, rs.seq, rs.hlc = r.uint(), Revision(r.uint()), Revision(r.uint()), Seq(r.uint()), crdt.HLC(r.uint())
	rs.token, rs.quota, rs.total, rs.forgotten = Token(r.uint()), r.uint(), r.uint(), r.uint()
	r.check(rs.revision > 0 && rs.compacted <= rs.revision)
	return r.uint()
}

// add puts an item into a tree that must not have it.
func add[T any](r *reader, t *tree[T], item T) {
	if r.err != nil {
		return
	}
	_, replaced := t.Set(item)
	r.check(!replaced)
}

func (rs *restorer) record(r *reader) {
	n := r.array(16)
	switch k := recordKind(r.uint()); {
	case k == recordEntry && n == 2:
		e := r.entry()
		add(r, rs.live, e)
		rs.entry(r, e)
	case k == recordChange && n == 6:
		rs.change(r)
	case k == recordLease && (n == 3 || n == 4):
		l := &Lease{ID: LeaseID(r.uint()), TTL: r.uint()}
		if n == 4 {
			l.Left = r.upTo(l.TTL)
		}
		add(r, rs.leases, l)
		rs.bytes += leaseCost
	case k == recordClaim && n == 11:
		rs.claim(r)
	case k == recordPool && n == 4:
		p := &Pool{First: r.uint(), Last: r.uint(), Name: r.name()}
		r.check(p.First <= p.Last)
		add(r, rs.pools, p)
		add(r, rs.free, p.all())
		rs.bytes += poolCost
	case k == recordBlock && n == 7:
		rs.block(r)
	case k == recordClient && n == 4:
		c := &client{floor: r.uint(), used: r.uint(), id: r.str(MaxClientID)}
		add(r, rs.clients, c)
		add(r, rs.used, c)
	case k == recordResult && n == 4:
		rs.result(r)
	default:
		r.fail(ErrMalformed)
	}
}

// entry takes note of an entry, live or not.
func (rs *restorer) entry(r *reader, e *Entry) {
	if r.err != nil {
		return
	}
	_, twice := rs.puts[e.Seq]
	r.check(!twice && e.Seq <= rs.seq && e.Mod <= rs.revision)
	rs.puts[e.Seq] = e
	rs.bytes += e.cost()
}

func (rs *restorer) change(r *reader) {
	c := &Change{Revision: Revision(r.uint()), Seq: Seq(r.uint()), Modified: crdt.HLC(r.uint())}
	put := r.bool()
	if r.err == nil && !r.d.Nil() {
		c.Prev = r.entry()
	}
	r.check(put || c.Prev != nil)
	r.check(c.Revision >= rs.compacted && c.Revision <= rs.revision && c.Seq <= rs.seq)
	add(r, rs.log, c)
	if c.Prev != nil {
		r.check(c.Prev.Mod < c.Revision)
		add(r, rs.past, c)
		rs.entry(r, c.Prev)
	}
	if put {
		rs.nexts = append(rs.nexts, c)
	}
	rs.bytes += changeCost
	if r.err == nil {
		rs.history += c.historic()
	}
}

func (rs *restorer) claim(r *reader) {
	c := &claim{
		id: ClaimID{LeaseID(r.uint()), r.uint()}, mode: Mode(r.uint()), places: r.uint(), delay: r.uint(), order: r.uint(),
		token: Token(r.uint()), delayed: r.bool(), name: r.name(), value: r.bin(MaxValue),
	}
	l := lock{name: c.name, places: c.places}
	if had := rs.lockOf(c.name); had != nil {
		l = *had
	}
	r.check(c.mode >= Exclusive && c.mode <= Place && (c.mode == Place) == (c.places > 0) && l.places == c.places)
	r.check(c.token <= rs.token && (c.delayed && c.token != 0 || rs.lease(c.id.Session) != nil))
	if c.token == 0 {
		add(r, rs.queued, c)
		l.queued++
	} else {
		r.check(l.admits(c.mode))
		add(r, rs.held, c)
		l.holders++
		l.exclusive = c.mode == Exclusive
	}
	if !c.delayed {
		add(r, rs.claims, c)
	}
	if r.err == nil {
		rs.locks.Set(&l)
		rs.bytes += c.cost()
	}
}

func (rs *restorer) block(r *reader) {
	a := &Allocation{First: r.uint(), Size: r.uint(), Session: LeaseID(r.uint()), Token: Token(r.uint()), Pool: r.name(), Label: r.str(MaxLabel)}
	r.check(a.Size > 0 && a.Token <= rs.token && (a.Session == 0 || rs.lease(a.Session) != nil))
	if r.err == nil {
		r.check(rs.take(a.all()))
	}
	add(r, rs.blocks, a)
	if a.Session != 0 {
		add(r, rs.owned, a)
	}
	rs.bytes += a.cost()
}

func (rs *restorer) result(r *reader) {
	rec, id := &recorded{number: r.uint()}, r.str(MaxClientID)
	rec.result = r.bin(maxRecord)
	c, ok := rs.clients.Get(&client{id: id})
	r.check(ok)
	kept := newReader(rec.result)
	kept.result()
	kept.end()
	if r.check(kept.err == nil); r.err != nil {
		return
	}
	last := c.floor
	if n := len(c.results); n > 0 {
		last = c.results[n-1].number
	}
	if r.check(rec.number > last); r.err != nil {
		return
	}
	c.results = append(c.results, rec)
	rs.results++
	rs.kept += uint64(len(rec.result))
}

// finish rebuilds what spans records of several kinds and checks that they agree.
func (rs *restorer) finish() error {
	ok := rs.bytes == rs.total
	for _, c := range rs.nexts {
		e := rs.puts[c.Seq]
		if e == nil || e.Mod != c.Revision || c.Prev != nil && c.Prev.Key != e.Key {
			return ErrSnapshot
		}
		c.Next = e
	}
	rs.live.Scan(func(e *Entry) bool {
		if e.Lease != 0 {
			rs.attached.Set(attachment{e.Lease, e.Key})
			ok = ok && rs.lease(e.Lease) != nil
		}
		return ok
	})
	if !ok {
		return ErrSnapshot
	}
	return nil
}
