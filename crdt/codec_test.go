package crdt

import (
	"bytes"
	"errors"
	"math"
	"reflect"
	"runtime"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func encode(f func(*Encoder)) []byte {
	e := NewEncoder()
	f(e)
	return e.Bytes()
}

func decode[T any](b []byte, f func(*Decoder) (T, error)) (T, error) {
	d := NewDecoder()
	d.Reset(b)
	v, err := f(d)
	if err == nil && d.Len() > 0 {
		err = errors.New("bytes left over")
	}
	return v, err
}

// genSeq draws sequence numbers from the two ends of the range.
func genSeq() *rapid.Generator[uint64] {
	return rapid.OneOf(rapid.Uint64Range(1, 30), rapid.Uint64Range(math.MaxUint64-4, math.MaxUint64))
}

func genSpan() *rapid.Generator[Span] {
	return rapid.Custom(func(t *rapid.T) Span {
		a, b := genSeq().Draw(t, "a"), genSeq().Draw(t, "b")
		return Span{Inc(rapid.Uint64Range(1, 3).Draw(t, "inc")), min(a, b), max(a, b)}
	})
}

func genDots() *rapid.Generator[Dots] {
	return rapid.Custom(func(t *rapid.T) Dots {
		var s Dots
		for _, sp := range rapid.SliceOfN(genSpan(), 0, 6).Draw(t, "spans") {
			s = s.With(sp)
		}
		return s
	})
}

func genFewDots() *rapid.Generator[Dots] {
	return rapid.Custom(func(t *rapid.T) Dots {
		var s Dots
		for _, seq := range rapid.SliceOfN(rapid.Uint64Range(1, 20), 0, 6).Draw(t, "seqs") {
			s = s.With(Span{Inc(1 + seq%3), seq, seq})
		}
		return s
	})
}

func genClock() *rapid.Generator[*Clock] {
	return rapid.Custom(func(t *rapid.T) *Clock {
		c := NewClock()
		for _, sp := range rapid.SliceOfN(genSpan(), 0, 8).Draw(t, "spans") {
			c.Add(sp)
		}
		for _, inc := range rapid.SliceOfN(rapid.Uint64Range(1, 4), 0, 2).Draw(t, "closed") {
			c.Close(Inc(inc))
		}
		return c
	})
}

func genCell() *rapid.Generator[*Cell] {
	return rapid.Custom(func(t *rapid.T) *Cell {
		return &Cell{
			Key:     string(rapid.SliceOfN(rapid.Byte(), 1, 40).Draw(t, "key")),
			Path:    string(rapid.SliceOfN(rapid.Byte(), 0, 3).Draw(t, "path")),
			Kind:    Kind(rapid.Uint8Range(1, uint8(KindBounded)).Draw(t, "kind")),
			Flags:   Flags(rapid.Byte().Draw(t, "flags")),
			Dot:     Dot{Inc(rapid.Uint64Min(1).Draw(t, "inc")), 100 + rapid.Uint64Max(math.MaxUint64-100).Draw(t, "seq")},
			HLC:     HLC(rapid.Uint64().Draw(t, "hlc")),
			Expires: rapid.Int64Min(0).Draw(t, "expires"),
			Value:   append([]byte{}, rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "value")...),
		}
	})
}

func genOp() *rapid.Generator[*Op] {
	return rapid.Custom(func(t *rapid.T) *Op {
		c := genCell().Draw(t, "cell")
		o := &Op{Dot: c.Dot, Key: c.Key, HLC: c.HLC, Cell: c,
			Covers: genFewDots().Draw(t, "covers"), Removes: genFewDots().Draw(t, "removes")}
		if rapid.Bool().Draw(t, "bare") {
			o.Cell = nil
			if rapid.Bool().Draw(t, "no key") {
				o.Key = ""
			}
		}
		return o
	})
}

func genBatch() *rapid.Generator[*Op] {
	return rapid.Custom(func(t *rapid.T) *Op {
		o := &Op{HLC: HLC(rapid.Uint64().Draw(t, "hlc")), Removes: genFewDots().Draw(t, "removes")}
		cells := rapid.SliceOfN(genCell(), 2, 5).Draw(t, "cells")
		seq := uint64(20)
		for _, c := range cells {
			seq += rapid.Uint64Range(1, 3).Draw(t, "gap")
			c.Dot, c.HLC = Dot{5, seq}, o.HLC
		}
		o.Cell, o.More = cells[len(cells)-1], cells[:len(cells)-1]
		o.Dot, o.Covers = o.Cell.Dot, Dots{{5, 21, seq - 1}}
		return o
	})
}

func TestBatchRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		op := genBatch().Draw(t, "op")
		got, err := decode(encode(func(e *Encoder) { e.Batch(op) }), (*Decoder).Batch)
		if err != nil || !sameOp(got, op) {
			t.Fatalf("got %+v, %v want %+v", got, err, op)
		}
	})
}

func TestCodecRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cell, op, dots, clock := genCell().Draw(t, "cell"), genOp().Draw(t, "op"), genDots().Draw(t, "dots"), genClock().Draw(t, "clock")
		u, i, b := rapid.Uint64().Draw(t, "u"), rapid.Int64().Draw(t, "i"), rapid.Bool().Draw(t, "b")
		enc := NewEncoder()
		enc.Reset([]byte("head"))
		enc.Cell(cell)
		enc.Op(op)
		enc.Dots(dots)
		enc.Clock(clock)
		enc.Uint(u)
		enc.Int(i)
		enc.Bool(b)
		enc.Nil()
		enc.Raw([]byte("tail"))
		d := NewDecoder()
		d.Reset(enc.Bytes())
		if head, err := d.Raw(4); err != nil || string(head) != "head" {
			t.Fatalf("head %q, %v", head, err)
		}
		if got, err := d.Cell(); err != nil || !reflect.DeepEqual(got, cell) {
			t.Fatalf("cell: got %+v, %v want %+v", got, err, cell)
		}
		if got, err := d.Op(); err != nil || !sameOp(got, op) {
			t.Fatalf("op: got %+v, %v want %+v", got, err, op)
		}
		if got, err := d.Dots(100); err != nil || !slices.Equal(got, dots) {
			t.Fatalf("dots: got %v, %v want %v", got, err, dots)
		}
		if got, err := d.Clock(100); err != nil || !got.Equal(clock) {
			t.Fatalf("clock: got %v, %v want %v", got, err, clock)
		}
		if got, err := d.Uint(); err != nil || got != u {
			t.Fatalf("uint: got %d, %v want %d", got, err, u)
		}
		if got, err := d.Int(); err != nil || got != i {
			t.Fatalf("int: got %d, %v want %d", got, err, i)
		}
		if got, err := d.Bool(); err != nil || got != b {
			t.Fatalf("bool: got %v, %v want %v", got, err, b)
		}
		if d.Nil() != true || d.Nil() != false {
			t.Fatal("nil")
		}
		if string(d.Remaining()) != "tail" {
			t.Fatalf("tail %q", d.Remaining())
		}
	})
}

func sameOp(a, b *Op) bool {
	return a.Dot == b.Dot && a.HLC == b.HLC && a.Key == b.Key && slices.Equal(a.Covers, b.Covers) &&
		slices.Equal(a.Removes, b.Removes) && reflect.DeepEqual(a.Cell, b.Cell) && reflect.DeepEqual(a.More, b.More)
}

func sampleCell() *Cell {
	return &Cell{Key: "net/10.0.0.1", Path: "p", Kind: KindMap, Flags: FlagEphemeral, Dot: Dot{7 << 40, 9}, HLC: 1 << 40, Expires: 1, Value: []byte("value")}
}

func sampleOp() *Op {
	c := sampleCell()
	return &Op{Dot: c.Dot, Key: c.Key, HLC: c.HLC, Cell: c, Covers: DotsOf(Dot{7 << 40, 8}), Removes: DotsOf(Dot{1, 2}, Dot{7 << 40, 8})}
}

// sampleBatch is dots 7 to 10 of an incarnation, of which 8 came and went.
func sampleBatch() *Op {
	o := &Op{Dot: Dot{5, 10}, HLC: 9, Covers: Dots{{5, 7, 9}}, Removes: DotsOf(Dot{5, 3})}
	for _, seq := range []uint64{7, 9, 10} {
		o.More = append(o.More, &Cell{Key: "k", Path: "e", Kind: KindSet, Value: []byte{}, Dot: Dot{5, seq}, HLC: o.HLC})
	}
	o.Cell, o.More = o.More[2], o.More[:2:2]
	return o
}

func sampleClock() *Clock {
	c := NewClock()
	c.Add(Span{1, 1, 10})
	c.Add(Span{1, 12, 13})
	c.Add(Span{1, 20, 20})
	c.Add(Span{2, 2, 2})
	c.Close(2)
	return c
}

// Every strict prefix of an encoding is refused, with ErrCodec.
func TestDecoderTruncated(t *testing.T) {
	all := map[string]struct {
		b []byte
		f func(*Decoder) (any, error)
	}{
		"cell":  {encode(func(e *Encoder) { e.Cell(sampleCell()) }), func(d *Decoder) (any, error) { return d.Cell() }},
		"op":    {encode(func(e *Encoder) { e.Op(sampleOp()) }), func(d *Decoder) (any, error) { return d.Op() }},
		"batch": {encode(func(e *Encoder) { e.Batch(sampleBatch()) }), func(d *Decoder) (any, error) { return d.Batch() }},
		"dots":  {encode(func(e *Encoder) { e.Dots(sampleOp().Removes) }), func(d *Decoder) (any, error) { return d.Dots(10) }},
		"clock": {encode(func(e *Encoder) { e.Clock(sampleClock()) }), func(d *Decoder) (any, error) { return d.Clock(10) }},
	}
	for name, c := range all {
		if _, err := decode(c.b, c.f); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for n := range c.b {
			if _, err := decode(c.b[:n], c.f); !errors.Is(err, ErrCodec) {
				t.Errorf("%s: first %d of %d bytes: %v", name, n, len(c.b), err)
			}
		}
	}
}

// A later version may append fields to every structure.
func TestDecoderSkipsNewFields(t *testing.T) {
	extra := func(e *Encoder) { // two fields: [[nil, -5], {"a": 2.5}], and an ext
		e.ArrayLen(2)
		e.ArrayLen(2)
		e.Nil()
		e.Int(-5)
		e.Raw([]byte{0x81, 0xa1, 'a', 0xcb, 0x40, 4, 0, 0, 0, 0, 0, 0})
		e.Raw([]byte{0xc7, 3, 1, 1, 2, 3})
	}
	c := sampleCell()
	b := encode(func(e *Encoder) {
		e.ArrayLen(6)
		e.ArrayLen(4)
		e.Uint(uint64(c.Dot.Inc))
		e.Uint(c.Dot.Seq)
		extra(e)
		e.Uint(uint64(c.HLC))
		e.Str(c.Key)
		e.ArrayLen(7)
		e.Str(c.Path)
		e.Uint(uint64(c.Kind))
		e.Uint(uint64(c.Flags))
		e.Uint(uint64(c.Expires))
		e.Bin(c.Value)
		extra(e)
		extra(e)
	})
	if got, err := decode(b, (*Decoder).Cell); err != nil || !reflect.DeepEqual(got, c) {
		t.Fatalf("got %+v, %v want %+v", got, err, c)
	}
}

func TestDecoderRefuses(t *testing.T) {
	dots := func(d *Decoder) error { _, err := d.Dots(4); return err }
	op := func(d *Decoder) error { _, err := d.Op(); return err }
	cell := func(d *Decoder) error { _, err := d.Cell(); return err }
	clock := func(d *Decoder) error { _, err := d.Clock(4); return err }
	skip := func(d *Decoder) error { return d.Skip(1) }
	encOp := func(change func(*Op)) []byte {
		o := sampleOp()
		change(o)
		return encode(func(e *Encoder) { e.Op(o) })
	}
	batch := func(d *Decoder) error { _, err := d.Batch(); return err }
	encBatch := func(change func(*Op)) []byte {
		o := sampleBatch()
		change(o)
		return encode(func(e *Encoder) { e.Batch(o) })
	}
	encCell := func(change func(*Cell)) []byte {
		c := sampleCell()
		change(c)
		return encode(func(e *Encoder) { e.Cell(c) })
	}
	deep := func(n int) []byte { return append(bytes.Repeat([]byte{0x91}, n), 0) }
	spans := func(seqs ...uint64) []byte { // [[inc 1, seqs…]]
		return encode(func(e *Encoder) {
			e.ArrayLen(1)
			e.ArrayLen(1 + len(seqs))
			e.Uint(1)
			for _, s := range seqs {
				e.Uint(s)
			}
		})
	}
	many := Dots{}
	for i := range uint64(5) {
		many = many.With(Span{1, 1 + 3*i, 1 + 3*i})
	}
	tests := []struct {
		name string
		b    []byte
		f    func(*Decoder) error
	}{
		{"empty", nil, cell},
		{"array of 2^32-1", []byte{0xdd, 0xff, 0xff, 0xff, 0xff}, clock},
		{"group of 2^32-1", []byte{0x91, 0xdd, 0xff, 0xff, 0xff, 0xff, 1}, dots},
		{"bytes of 2^32-1", []byte{0xc6, 0xff, 0xff, 0xff, 0xff, 0}, func(d *Decoder) error { _, err := d.Bin(math.MaxInt); return err }},
		{"string of 2^32-1", []byte{0xdb, 0xff, 0xff, 0xff, 0xff, 0}, func(d *Decoder) error { _, err := d.Str(math.MaxInt); return err }},
		{"bytes over limit", encode(func(e *Encoder) { e.Bin(make([]byte, 9)) }), func(d *Decoder) error { _, err := d.Bin(8); return err }},
		{"negative limit", encode(func(e *Encoder) { e.ArrayLen(0); e.Bin([]byte{1}) }), func(d *Decoder) error {
			if n, err := d.ArrayLen(-1); n != 0 || err != nil {
				return nil
			}
			_, err := d.Bin(-1)
			return err
		}},
		{"skip of 2^32-1 map", []byte{0xdf, 0xff, 0xff, 0xff, 0xff}, skip},
		{"skip of 2^32-1 ext", []byte{0xc9, 0xff, 0xff, 0xff, 0xff, 1}, skip},
		{"skip 9 deep", deep(9), skip},
		{"skip 1M deep", deep(1 << 20), skip},
		{"skip unused code", []byte{0xc1}, skip},
		{"negative as uint", []byte{0xff}, func(d *Decoder) error { _, err := d.Uint(); return err }},
		{"-1 in 8 bytes as uint", encode(func(e *Encoder) { e.Int(math.MinInt64) }), func(d *Decoder) error { _, err := d.Uint(); return err }},
		{"2^63 as int", encode(func(e *Encoder) { e.Uint(1 << 63) }), func(d *Decoder) error { _, err := d.Int(); return err }},
		{"nil as uint", []byte{0xc0}, func(d *Decoder) error { _, err := d.Uint(); return err }},
		{"number as bool", []byte{1}, func(d *Decoder) error { _, err := d.Bool(); return err }},
		{"raw beyond the end", []byte{1}, func(d *Decoder) error { _, err := d.Raw(2); return err }},
		{"raw of less than none", []byte{1}, func(d *Decoder) error { _, err := d.Raw(-1); return err }},
		{"inc 0", []byte{0x92, 0, 1}, func(d *Decoder) error { _, err := d.Dot(); return err }},
		{"seq 0", []byte{0x92, 1, 0}, func(d *Decoder) error { _, err := d.Dot(); return err }},
		{"dot of one field", []byte{0x91, 1}, func(d *Decoder) error { _, err := d.Dot(); return err }},
		{"too many spans", encode(func(e *Encoder) { e.Dots(many) }), dots},
		{"group without spans", spans(), dots},
		{"half a span", spans(1), dots},
		{"first seq overflows", spans(math.MaxUint64, 0), dots},
		{"span overflows", spans(1, math.MaxUint64-1), dots},
		{"second span overflows", spans(0, math.MaxUint64-2, 0, 0), dots},
		{"gap overflows", spans(0, 5, math.MaxUint64-5, 0), dots},
		{"incs out of order", []byte{0x92, 0x93, 2, 0, 0, 0x93, 1, 0, 0}, dots},
		{"inc twice", []byte{0x92, 0x93, 1, 0, 0, 0x93, 1, 9, 0}, dots},
		{"entry knows nothing", []byte{0x91, 0x94, 1, 0, 0xc2, 0x90}, clock},
		{"entry twice", []byte{0x92, 0x94, 1, 1, 0xc2, 0x90, 0x94, 1, 1, 0xc2, 0x90}, clock},
		{"half an island", []byte{0x91, 0x94, 1, 1, 0xc2, 0x91, 1}, clock},
		{"island overflows", encode(func(e *Encoder) {
			e.ArrayLen(1)
			e.ArrayLen(4)
			e.Uint(1)
			e.Uint(math.MaxUint64 - 1)
			e.Bool(false)
			e.ArrayLen(2)
			e.Uint(0)
			e.Uint(0)
		}), clock},
		{"op removes itself", encOp(func(o *Op) { o.Removes = o.Removes.With(Span{o.Dot.Inc, o.Dot.Seq, o.Dot.Seq}) }), op},
		{"op removes too much", encOp(func(o *Op) { o.Removes = Dots{{1, 1, MaxRemoves + 1}} }), op},
		{"op removes everything", encOp(func(o *Op) { o.Removes = Dots{{1, 1, math.MaxUint64}, {2, 1, math.MaxUint64}} }), op},
		{"op covers too much", encOp(func(o *Op) { o.Covers = Dots{{1, 1, MaxCovers + 1}} }), op},
		{"op with cell without key", encOp(func(o *Op) { o.Key = "" }), op},
		{"batch of one cell", encBatch(func(o *Op) { o.More = nil }), batch},
		{"batch of too many cells", encBatch(func(o *Op) {
			for seq := uint64(11); len(o.More) < MaxBatchCells; seq++ {
				c := *o.Cell
				c.Dot.Seq = seq
				o.More = append(o.More, &c)
			}
		}), batch},
		{"batch out of order", encBatch(func(o *Op) { o.More[0], o.More[1] = o.More[1], o.More[0] }), batch},
		{"batch with a cell twice", encBatch(func(o *Op) { o.More[0] = o.More[1] }), batch},
		{"batch with a cell that it does not cover", encBatch(func(o *Op) { o.Covers = Dots{{5, 8, 9}} }), batch},
		{"batch with another cell last", encBatch(func(o *Op) { o.Dot.Seq = 11 }), batch},
		{"batch that removes its own cell", encBatch(func(o *Op) { o.Removes = DotsOf(Dot{5, 9}) }), batch},
		{"batch with a cell without key", encBatch(func(o *Op) { o.More[0].Key = "" }), batch},
		{"batch of too many bytes", encBatch(func(o *Op) { o.More[0].Value = make([]byte, MaxBatchBytes) }), batch},
		{"batch that covers too much", encBatch(func(o *Op) { o.Covers = Dots{{5, 1, MaxCovers + 1}} }), batch},
		{"cell without key", encCell(func(c *Cell) { c.Key = "" }), cell},
		{"key too long", encCell(func(c *Cell) { c.Key = string(make([]byte, MaxKeyBytes+1)) }), cell},
		{"path too long", encCell(func(c *Cell) { c.Path = string(make([]byte, MaxKeyBytes+1)) }), cell},
		{"value too long", encCell(func(c *Cell) { c.Value = make([]byte, MaxValueBytes+1) }), cell},
		{"kind 0", encCell(func(c *Cell) { c.Kind = 0 }), cell},
		{"kind 9", encCell(func(c *Cell) { c.Kind = KindBounded + 1 }), cell},
		{"expires negative", encCell(func(c *Cell) { c.Expires = -1 }), cell},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := NewDecoder()
			d.Reset(tt.b)
			if err := tt.f(d); !errors.Is(err, ErrCodec) {
				t.Errorf("got %v, want ErrCodec", err)
			}
		})
	}
	if _, err := decode(deep(8), func(d *Decoder) (int, error) { return 0, d.Skip(1) }); err != nil {
		t.Errorf("skip 8 deep: %v", err)
	}
}

func TestCodecAllocations(t *testing.T) {
	e, op, clock := NewEncoder(), sampleOp(), sampleClock()
	if n := testing.AllocsPerRun(100, func() {
		e.Reset(e.Bytes()[:0])
		e.Op(op)
		e.Cell(op.Cell)
		for inc, en := range clock.entries {
			e.Entry(inc, en)
		}
	}); n != 0 {
		t.Errorf("encoding: %v allocations", n)
	}
}

// A length that the input cannot hold is refused before memory is taken for it.
func TestHostileLengthsAllocateLittle(t *testing.T) {
	big := []byte{0xdd, 0x01, 0, 0, 0, 1, 1, 1, 1}
	inputs := map[string]struct {
		b []byte
		f func(*Decoder) error
	}{
		"spans":   {append([]byte{0x91}, big...), func(d *Decoder) error { _, err := d.Dots(math.MaxInt / 4); return err }},
		"groups":  {big, func(d *Decoder) error { _, err := d.Dots(math.MaxInt / 4); return err }},
		"islands": {append([]byte{0x94, 1, 1, 0xc2}, big...), func(d *Decoder) error { _, _, err := d.Entry(); return err }},
		"bytes":   {[]byte{0xc6, 0x01, 0, 0, 0, 1}, func(d *Decoder) error { _, err := d.Bin(math.MaxInt); return err }},
		"string":  {[]byte{0xdb, 0x01, 0, 0, 0, 1}, func(d *Decoder) error { _, err := d.Str(math.MaxInt); return err }},
	}
	for name, in := range inputs {
		var before, after runtime.MemStats
		d := NewDecoder()
		d.Reset(in.b)
		runtime.ReadMemStats(&before)
		err := in.f(d)
		runtime.ReadMemStats(&after)
		if !errors.Is(err, ErrCodec) {
			t.Errorf("%s: %v", name, err)
		}
		if n := after.TotalAlloc - before.TotalAlloc; n > 1<<18 {
			t.Errorf("%s: %d bytes allocated for an input of %d", name, n, len(in.b))
		}
	}
}

// fuzz decodes with f, and demands that what was accepted is valid, and decodes
// to itself when encoded again.
func fuzz[T any](f *testing.F, seed []byte, dec func(*Decoder) (T, error), enc func(*Encoder, T), same func(a, b T) bool) {
	f.Add(seed)
	f.Fuzz(func(t *testing.T, b []byte) {
		d := NewDecoder()
		d.Reset(b)
		v, err := dec(d)
		if err != nil {
			if !errors.Is(err, ErrCodec) {
				t.Fatalf("error without ErrCodec: %v", err)
			}
			return
		}
		again, err := decode(encode(func(e *Encoder) { enc(e, v) }), dec)
		if err != nil || !same(again, v) {
			t.Fatalf("decoded %+v, then %+v, %v", v, again, err)
		}
	})
}

func FuzzDecodeCell(f *testing.F) {
	fuzz(f, encode(func(e *Encoder) { e.Cell(sampleCell()) }), (*Decoder).Cell, (*Encoder).Cell,
		func(a, b *Cell) bool { return reflect.DeepEqual(a, b) })
}

func FuzzDecodeOp(f *testing.F) {
	fuzz(f, encode(func(e *Encoder) { e.Op(sampleOp()) }), (*Decoder).Op, (*Encoder).Op, sameOp)
}

func FuzzDecodeBatch(f *testing.F) {
	fuzz(f, encode(func(e *Encoder) { e.Batch(sampleBatch()) }), (*Decoder).Batch, (*Encoder).Batch, sameOp)
}

func FuzzDecodeClock(f *testing.F) {
	fuzz(f, encode(func(e *Encoder) { e.Clock(sampleClock()) }),
		func(d *Decoder) (*Clock, error) { return d.Clock(100) }, (*Encoder).Clock, (*Clock).Equal)
}

func FuzzDecodeDots(f *testing.F) {
	fuzz(f, encode(func(e *Encoder) { e.Dots(sampleOp().Removes) }),
		func(d *Decoder) (Dots, error) { return d.Dots(100) }, (*Encoder).Dots,
		func(a, b Dots) bool { return slices.Equal(a, b) && slices.Equal(Dots(nil).Union(a), a) })
}

func FuzzSkip(f *testing.F) {
	f.Add(encode(func(e *Encoder) { e.Op(sampleOp()) }))
	f.Fuzz(func(t *testing.T, b []byte) {
		d := NewDecoder()
		d.Reset(b)
		if err := d.Skip(1); err != nil && !errors.Is(err, ErrCodec) {
			t.Fatal(err)
		}
	})
}

func BenchmarkEncodeOp(b *testing.B) {
	e, op := NewEncoder(), sampleOp()
	b.ReportAllocs()
	for b.Loop() {
		e.Reset(e.Bytes()[:0])
		e.Op(op)
	}
}

func BenchmarkDecodeOp(b *testing.B) {
	d, enc := NewDecoder(), encode(func(e *Encoder) { e.Op(sampleOp()) })
	b.ReportAllocs()
	for b.Loop() {
		d.Reset(enc)
		if _, err := d.Op(); err != nil {
			b.Fatal(err)
		}
	}
}
