package reconcile

import (
	"errors"
	"fmt"
	"testing"

	"github.com/meshkv/meshkv/crdt"
	"pgregory.net/rapid"
)

func TestConcludedWaitsForProvided(t *testing.T) {
	a, b := newSite(1), newSite(2)
	b.put("key", "value")
	sa, sb := Open(1, testSeed, a.snapshot()), Accept(1, testSeed, b.snapshot())
	for moved := true; moved; {
		moved = false
		for _, s := range [][2]*Session{{sa, sb}, {sb, sa}} {
			for {
				m, ok := s[0].NextMessage(nil, 1<<16)
				if !ok {
					break
				}
				moved = true
				if err := s[1].Step(m); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if _, _, ok := sa.Concluded(); ok {
		t.Fatal("concluded although a cell was not taken")
	}
	if got := len(sa.TakeProvided()); got != 1 {
		t.Fatalf("%d cells", got)
	}
	if _, _, ok := sa.Concluded(); !ok {
		t.Fatal("not concluded")
	}
	if _, _, ok := sa.Concluded(); ok {
		t.Fatal("concluded twice")
	}
}

func TestPeekAndAbort(t *testing.T) {
	a, b := newSite(1), newSite(2)
	sa := Open(300, testSeed, a.snapshot())
	buf := []byte("frame")
	m, ok := sa.NextMessage(buf, 1000)
	if !ok || string(m[:5]) != "frame" {
		t.Fatalf("%q, %v", m, ok)
	}
	m = m[5:]
	if id, opens, err := Peek(m); id != 300 || !opens || err != nil {
		t.Errorf("peek: %d, %v, %v", id, opens, err)
	}
	abort := AppendAbort([]byte("frame"), 300)[5:]
	if id, opens, err := Peek(abort); id != 300 || opens || err != nil {
		t.Errorf("peek: %d, %v, %v", id, opens, err)
	}
	if !Aborts(abort) || Aborts(m) || Aborts(nil) {
		t.Error("aborts")
	}
	sb := Accept(300, testSeed, b.snapshot())
	if err := sb.Step(m); err != nil {
		t.Fatal(err)
	}
	if err := sb.Step(abort); !errors.Is(err, ErrAborted) {
		t.Errorf("%v", err)
	}
	if _, ok := sb.NextMessage(nil, 1000); ok || sb.Done() {
		t.Error("a dead session goes on")
	}
	if err := sb.Step(m); !errors.Is(err, ErrAborted) {
		t.Errorf("%v", err)
	}
	other := Accept(301, testSeed, b.snapshot())
	if err := other.Step(m); !errors.Is(err, ErrProtocol) {
		t.Errorf("%v", err)
	}
}

// message builds a payload of session 1.
func message(fields ...any) []byte {
	e := crdt.NewEncoder()
	e.Reset(nil)
	e.Uint(1)
	for _, f := range fields {
		switch f := f.(type) {
		case int:
			e.Uint(uint64(f))
		case bool:
			e.Bool(f)
		case []byte:
			e.Bin(f)
		case crdt.Dots:
			e.Dots(f)
		case *crdt.Cell:
			e.Cell(f)
		}
	}
	return e.Bytes()
}

func TestProtocolViolations(t *testing.T) {
	site := newSite(1)
	for i := range 100 {
		site.put(fmt.Sprint("key", i), "v")
	}
	cell := cellAt("k", 5, 5)
	huge := crdt.Dots{{Inc: 1, Lo: 1, Hi: 1 << 62}}
	greeting := []any{version, 1, 1, 2, 2, 0}
	open := append([]any{kindOpen}, greeting...)
	accepted := append([]any{kindAccept}, greeting...)
	with := func(first []any, more ...any) []any { return append(append([]any{}, first...), more...) }
	for name, test := range map[string]struct {
		initiator bool
		fields    []any
	}{
		"nothing opened":            {false, []any{kindDone}},
		"accept at the responder":   {false, accepted},
		"open at the initiator":     {true, open},
		"opened twice":              {false, with(open, open...)},
		"version":                   {false, []any{kindOpen, 99, 1, 1, 2, 2, 0}},
		"unannounced deaths":        {false, with(open, kindPending, huge)},
		"endless deaths":            {false, []any{kindOpen, version, 1, 1, 2, 2, 1, kindPending, huge}},
		"data before deaths":        {false, []any{kindOpen, version, 1, 1, 2, 2, 1, kindDone}},
		"reply without query":       {true, with(accepted, kindDataList, 0, 0)},
		"end without query":         {true, with(accepted, kindEnd, 2)},
		"cell before the clocks":    {true, with(accepted, kindCell, cell)},
		"prefix too deep":           {false, with(open, kindDataList, 17, 0, 0)},
		"prefix too long":           {false, with(open, kindDataList, 1, 16, 0)},
		"sums cut off":              {false, with(open, kindDataSums, 0, 1, 0)},
		"ask for a long list":       {false, with(open, kindAsk, 0)},
		"answer to a long list":     {false, with(open, kindAnswer, 0, []byte{1}, []byte{1})},
		"want without offer":        {false, with(open, kindWant, []byte{1})},
		"acknowledgement of none":   {false, with(open, kindAck, 1)},
		"long dots":                 {false, with(open, kindDataList, 0, 1<<20)},
		"clock after data":          {false, with(open, kindOffer, 0, kindClockList, 0, false, 0)},
		"unfinished query at end":   {false, with(open, kindDataList, 0, 0, kindDone)},
		"message after end":         {false, with(open, kindDone, kindAck, 0)},
		"unknown message":           {false, with(open, 99)},
		"end at the responder":      {false, with(open, kindEnd, 0)},
		"done at the initiator":     {true, with(accepted, kindDone)},
		"mask of another length":    {false, with(open, kindClockDiff, 0, false, []byte{1, 2, 3}, 0)},
		"clock of too many entries": {false, with(open, kindClockList, 0, false, 1<<21)},
	} {
		s := Accept(1, testSeed, site.snapshot())
		if test.initiator {
			s = Open(1, testSeed, site.snapshot())
			s.NextMessage(nil, 1<<16)
		}
		err := s.Step(message(test.fields...))
		if !errors.Is(err, ErrProtocol) && !errors.Is(err, crdt.ErrCodec) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// More queries than may be unfinished.
	s := Accept(1, testSeed, site.snapshot())
	fields := open
	for range s.limits.queries + 1 {
		fields = with(fields, kindDataList, 0, 0)
	}
	if err := s.Step(message(fields...)); !errors.Is(err, ErrProtocol) {
		t.Errorf("flood of queries: %v", err)
	}
}

// Payloads in the right order, some with wrong bytes, must never panic, and end
// in an error or in a session that goes on.
func FuzzStep(f *testing.F) {
	a, b := newSite(1), newSite(2)
	for i := range 60 {
		op := a.put(fmt.Sprint("key", i), "v")
		if i%3 > 0 {
			b.apply(op)
		}
		if i%5 == 0 {
			b.put(fmt.Sprint("key", i), "w")
			a.delete(fmt.Sprint("key", i+1))
		}
	}
	sa, sb := Open(1, testSeed, a.snapshot()), Accept(1, testSeed, b.snapshot())
	for range 20 {
		if m, ok := sa.NextMessage(nil, 4096); ok {
			f.Add(false, m, uint16(3), byte(1))
			_ = sb.Step(m)
		}
		if m, ok := sb.NextMessage(nil, 4096); ok {
			f.Add(true, m, uint16(9), byte(7))
			_ = sa.Step(m)
		}
		sa.TakeProvided()
		sb.TakeProvided()
		sa.Concluded()
		sb.Concluded()
	}
	f.Fuzz(func(t *testing.T, toInitiator bool, payload []byte, at uint16, flip byte) {
		// One session gets the payload as it is after its greeting; another pair
		// runs with one byte of its traffic changed.
		fuzzed := Accept(1, testSeed, b.snapshot())
		peer := kindOpen
		if toInitiator {
			fuzzed = Open(1, testSeed, a.snapshot())
			fuzzed.NextMessage(nil, 1<<16)
			peer = kindAccept
		}
		if fuzzed.Step(message(peer, version, 1, 1, 2, 2, 0)) == nil && fuzzed.Step(payload) == nil {
			drain(t, fuzzed)
		}
		fresh := Accept(1, testSeed, b.snapshot())
		if fresh.Step(payload) == nil {
			drain(t, fresh)
		}
		if flip != 0 {
			corrupted(t, a, b, int(at), flip)
		}
	})
}

// drain takes out what a session has to say.
func drain(t fatal, s *Session) {
	for i := 0; ; i++ {
		if _, ok := s.NextMessage(nil, 4096); !ok {
			return
		}
		s.TakeProvided()
		s.Concluded()
		if i > 1<<12 {
			t.Fatalf("endless output")
		}
	}
}

// corrupted runs a session in which the at-th byte on the wire is flipped.
func corrupted(t fatal, a, b *site, at int, flip byte) {
	sessions := [2]*Session{Open(1, testSeed, a.snapshot()), Accept(1, testSeed, b.snapshot())}
	for i, moved := 0, true; moved; i++ {
		if i > 1<<12 {
			t.Fatalf("endless session")
		}
		moved = false
		for side, s := range sessions {
			m, ok := s.NextMessage(nil, 4096)
			if !ok {
				continue
			}
			moved = true
			if at >= 0 && at < len(m) {
				m[at] ^= flip
			}
			at -= len(m)
			if sessions[1-side].Step(m) != nil {
				return
			}
			for _, s := range sessions {
				s.TakeProvided()
				s.Concluded()
			}
		}
	}
}

func TestCorruptedTraffic(t *testing.T) {
	a, b := newSite(1), newSite(2)
	for i := range 200 {
		op := a.put(fmt.Sprint("key", i), "v")
		if i%7 > 0 {
			b.apply(op)
		}
		if i%9 == 0 {
			b.put(fmt.Sprint("key", i), "w")
		}
	}
	for at := 0; at < 3000; at += 1 + at%13 {
		corrupted(t, a, b, at, byte(1<<(at%8)))
		corrupted(t, a, b, at, 0xff)
	}
}

func TestDotsCodec(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var set crdt.Dots
		for range rapid.IntRange(0, 30).Draw(t, "n") {
			d := crdt.Dot{
				Inc: crdt.Inc(rapid.Uint64Range(1, 4).Draw(t, "inc")),
				Seq: rapid.SampledFrom([]uint64{1, 2, 3, 127, 128, 1 << 20, 1<<64 - 2, 1<<64 - 1}).Draw(t, "seq"),
			}
			set = set.With(crdt.Span{Inc: d.Inc, Lo: d.Seq, Hi: d.Seq})
		}
		var dots []crdt.Dot
		for d := range set.All() {
			dots = append(dots, d)
		}
		b := appendDots(nil, dots)
		if len(b) > len(dots)*dotBytes {
			t.Fatalf("%d dots in %d bytes", len(dots), len(b))
		}
		got, err := parseDots(b, len(dots))
		if err != nil || fmt.Sprint(got) != fmt.Sprint(dots) {
			t.Fatalf("%v, %v, want %v", got, err, dots)
		}
		for i := range b {
			if _, err := parseDots(b[:i], len(dots)); err != nil && !errors.Is(err, ErrProtocol) {
				t.Fatalf("%v", err)
			}
		}
		if len(dots) > 0 {
			if _, err := parseDots(b, len(dots)-1); err == nil {
				t.Fatal("limit")
			}
		}
	})
}
