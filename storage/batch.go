package storage

import (
	"math"

	"github.com/meshkv/meshkv/crdt"
)

// encodeBatch appends [hlcBound, [keyspace, …]], where a keyspace is
// [name, [cell, …], [dropped dot, …], [entry, …], [dot, …], [dot, …], 1]; the last
// element is there only if the keyspace is reset.
func encodeBatch(e *crdt.Encoder, b *Batch) {
	e.ArrayLen(2)
	e.Uint(uint64(b.HLCBound))
	e.ArrayLen(len(b.Keyspaces))
	for i := range b.Keyspaces {
		ks := &b.Keyspaces[i]
		if ks.Reset {
			e.ArrayLen(7)
		} else {
			e.ArrayLen(6)
		}
		e.Str(ks.Name)
		e.ArrayLen(len(ks.Put))
		for _, c := range ks.Put {
			e.Cell(c)
		}
		encodeDots(e, ks.Drop)
		e.ArrayLen(len(ks.Clock))
		for _, en := range ks.Clock {
			e.Entry(en.Inc, en.Entry)
		}
		encodeDots(e, ks.PendingAdd)
		encodeDots(e, ks.PendingDrop)
		if ks.Reset {
			e.Uint(1)
		}
	}
}

func encodeDots(e *crdt.Encoder, dots []crdt.Dot) {
	e.ArrayLen(len(dots))
	for _, d := range dots {
		e.Dot(d)
	}
}

// decodeBatch is the inverse of encodeBatch. Elements that later versions add
// are skipped.
func decodeBatch(d *crdt.Decoder) (b Batch, err error) {
	extra, err := fields(d, 2)
	if err != nil {
		return b, err
	}
	bound, err := d.Uint()
	if err != nil {
		return b, err
	}
	b.HLCBound = crdt.HLC(bound)
	if b.Keyspaces, err = decodeList(d, decodeKeyspaceBatch); err != nil {
		return b, err
	}
	return b, d.Skip(extra)
}

func decodeKeyspaceBatch(d *crdt.Decoder) (ks KeyspaceBatch, err error) {
	extra, err := fields(d, 6)
	if err != nil {
		return ks, err
	}
	if ks.Name, err = d.Str(MaxNameBytes); err != nil {
		return ks, err
	}
	if ks.Put, err = decodeList(d, (*crdt.Decoder).Cell); err != nil {
		return ks, err
	}
	if ks.Drop, err = decodeList(d, (*crdt.Decoder).Dot); err != nil {
		return ks, err
	}
	if ks.Clock, err = decodeList(d, decodeEntry); err != nil {
		return ks, err
	}
	if ks.PendingAdd, err = decodeList(d, (*crdt.Decoder).Dot); err != nil {
		return ks, err
	}
	if ks.PendingDrop, err = decodeList(d, (*crdt.Decoder).Dot); err != nil {
		return ks, err
	}
	if extra == 0 {
		return ks, nil
	}
	reset, err := d.Uint()
	if err != nil {
		return ks, err
	}
	ks.Reset = reset != 0
	return ks, d.Skip(extra - 1)
}

func decodeEntry(d *crdt.Decoder) (ClockEntry, error) {
	inc, en, err := d.Entry()
	return ClockEntry{inc, en}, err
}

// fields takes the beginning of a structure of at least n elements and returns
// how many more follow.
func fields(d *crdt.Decoder, n int) (extra int, err error) {
	have, err := d.ArrayLen(64)
	if err == nil && have < n {
		err = crdt.ErrCodec
	}
	return have - n, err
}

func decodeList[T any](d *crdt.Decoder, one func(*crdt.Decoder) (T, error)) ([]T, error) {
	n, err := d.ArrayLen(math.MaxInt)
	if err != nil || n == 0 {
		return nil, err
	}
	// The count is below the bytes left, which may hold far fewer elements.
	list := make([]T, 0, min(n, 1<<14))
	for range n {
		v, err := one(d)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	return list, nil
}
