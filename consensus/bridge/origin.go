package bridge

import (
	"encoding/binary"
	"errors"
	"math"

	"github.com/cespare/xxhash/v2"

	"github.com/meshkv/meshkv/consensus/machine"
	"github.com/meshkv/meshkv/crdt"
)

// ErrMalformed: a cell that is no copy of an entry.
var ErrMalformed = errors.New("cell is not that of a strong entry")

// Origin is the incarnation of the ops of a strong keyspace: of the gen-th of its name in
// a cluster, in one epoch. All nodes find the same by what the catalog says. It is a hash
// and has no time of birth: no clock and no birth horizon ever concerns it.
func Origin(cluster, name string, gen, epoch uint64) crdt.Inc {
	b := binary.BigEndian.AppendUint64(nil, gen)
	b = binary.BigEndian.AppendUint64(b, epoch)
	b = append(append(append(b, cluster...), 0), name...)
	// Neither 0, which is none, nor the largest, which clocks do not hold.
	return crdt.Inc(1 + xxhash.Sum64(b)%(math.MaxUint64-1))
}

// Op is the op of a change. It shares the bytes of the change.
func Op(origin crdt.Inc, c *machine.Change) *crdt.Op {
	dot := crdt.Dot{Inc: origin, Seq: uint64(c.Seq)}
	op := &crdt.Op{Dot: dot, Key: c.Key(), HLC: c.Modified}
	if c.Prev != nil {
		seq := uint64(c.Prev.Seq)
		op.Removes = crdt.Dots{{Inc: origin, Lo: seq, Hi: seq}}
	}
	if c.Next != nil {
		op.Cell = Cell(origin, c.Next)
	}
	return op
}

// Ops are the ops of changes, in their order.
func Ops(origin crdt.Inc, changes []*machine.Change) []*crdt.Op {
	ops := make([]*crdt.Op, len(changes))
	for i, c := range changes {
		ops[i] = Op(origin, c)
	}
	return ops
}

// Cell is the cell of an entry. It shares the bytes of the entry.
func Cell(origin crdt.Inc, e *machine.Entry) *crdt.Cell {
	var buf [4 * binary.MaxVarintLen64]byte
	b := buf[:0]
	for _, u := range [...]uint64{uint64(e.Create), uint64(e.Mod), e.Version, uint64(e.Lease)} {
		b = binary.AppendUvarint(b, u)
	}
	return &crdt.Cell{
		Key: e.Key, Value: e.Value, Path: string(b), Kind: crdt.KindRegister,
		Dot: crdt.Dot{Inc: origin, Seq: uint64(e.Seq)}, HLC: e.Modified,
	}
}

// Entry is the entry of which c is the copy. It shares the bytes of c. The error
// matches ErrMalformed.
func Entry(c *crdt.Cell) (machine.Entry, error) {
	e := machine.Entry{Key: c.Key, Value: c.Value, Seq: machine.Seq(c.Dot.Seq), Modified: c.HLC}
	rest := c.Path
	var err error
	number := func() uint64 {
		u, n := uvarint(rest)
		if n <= 0 {
			rest, err = "", ErrMalformed
			return 0
		}
		rest = rest[n:]
		return u
	}
	e.Create, e.Mod, e.Version, e.Lease = machine.Revision(number()), machine.Revision(number()), number(), machine.LeaseID(number())
	if err != nil || rest != "" || c.Kind != crdt.KindRegister {
		return machine.Entry{}, ErrMalformed
	}
	return e, nil
}

// uvarint is binary.Uvarint for the beginning of a string.
func uvarint(s string) (u uint64, n int) {
	var buf [binary.MaxVarintLen64]byte
	return binary.Uvarint(buf[:copy(buf[:], s)])
}
