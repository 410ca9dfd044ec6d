package keyspace

import (
	"encoding/binary"
	"time"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/crdt"
)

// A key of a type other than a register has many cells. Where one cell stands for what a key shows, in the change log,
// in pages and in watches, a summary does: a cell with the key, the kind and the HLC of the newest one, whose dot is the
// version of all of them, and whose path names the incarnation that wrote the newest one.

// summaryOf is c if it is a register or nil, and else a summary of its key as it is now.
func (k *Keyspace) summaryOf(c *crdt.Cell) *crdt.Cell {
	if c == nil || c.Kind == crdt.KindRegister {
		return c
	}
	return summary(c, k.index.sum(c.Key).minus(k.life.veiled[c.Key]))
}

// summary is c, or what stands for it and all others of its key, whose dots have that sum.
func summary(c *crdt.Cell, sum dotSum) *crdt.Cell {
	if c == nil || c.Kind == crdt.KindRegister {
		return c
	}
	return &crdt.Cell{
		Key: c.Key, Kind: c.Kind, HLC: c.HLC, Dot: crdt.Dot{Inc: crdt.Inc(max(sum[0], 1)), Seq: max(sum[1], 1)},
		Path: string(binary.BigEndian.AppendUint64(nil, uint64(c.Dot.Inc))),
	}
}

// typedEntry is a summary as users see it.
func (k *Keyspace) typedEntry(s *crdt.Cell) client.Entry {
	return client.Entry{
		Key:      s.Key,
		Type:     typeOf(s.Kind),
		Version:  client.Version{Inc: uint64(s.Dot.Inc), Seq: s.Dot.Seq},
		Origin:   k.writerName(crdt.Inc(binary.BigEndian.Uint64([]byte(s.Path)))),
		Modified: time.UnixMilli(s.HLC.WallMs()),
	}
}

// typeOf is how users call a kind.
func typeOf(kind crdt.Kind) client.Type {
	switch kind {
	case crdt.KindSet:
		return client.TypeSet
	case crdt.KindMap:
		return client.TypeMap
	case crdt.KindCounter:
		return client.TypeCounter
	case crdt.KindFlag:
		return client.TypeFlag
	case crdt.KindInverseFlag:
		return client.TypeInverseFlag
	case crdt.KindLog:
		return client.TypeLog
	case crdt.KindBounded:
		return client.TypeBounded
	}
	return client.TypeRegister
}

// wrongType is the error of a call for registers on a key that is none.
func wrongType(kind crdt.Kind) error {
	return client.WrongType(typeOf(kind), client.TypeRegister)
}
