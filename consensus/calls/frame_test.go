package calls

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"testing"
	"testing/iotest"
	"time"
)

// encode is what decode takes apart, with the length.
func encode(f frame) []byte {
	switch f.kind {
	case frameRequest:
		return appendRequest(nil, f.call, f.timeout, string(f.group), f.ask, f.body)
	case frameRefusal:
		return appendRefusal(nil, f.call, f.code, string(f.body))
	case frameFailure:
		return appendFailure(nil, f.call, string(f.body))
	case frameAnswer:
		return appendAnswer(nil, f.call, f.body)
	}
	return appendHead(nil, 0, f.kind, f.call)
}

var frames = []frame{
	{kind: frameRequest, call: 1, timeout: time.Second, ask: 7, group: []byte("g#1"), body: []byte("body")},
	{kind: frameRequest, call: 1<<64 - 1, group: bytes.Repeat([]byte("g"), MaxGroup), body: bytes.Repeat([]byte("b"), MaxBody)},
	{kind: frameRequest, call: 2, group: []byte{}, body: []byte{}},
	{kind: frameCancel, call: 3},
	{kind: frameVoid, call: 3},
	{kind: frameAnswer, call: 4, body: []byte{}},
	{kind: frameAnswer, call: 5, body: bytes.Repeat([]byte("a"), readBuffer-lengthBytes-headBytes)},
	{kind: frameAnswer, call: 5, body: bytes.Repeat([]byte("a"), readBuffer-lengthBytes-headBytes+1)},
	{kind: frameRefusal, call: 6, code: 9, body: bytes.Repeat([]byte("d"), MaxDetail)},
	{kind: frameFailure, call: 7, body: []byte("failed")},
	{kind: frameOverload, call: 8},
	{kind: framePing},
	{kind: framePong},
}

func TestFrames(t *testing.T) {
	var stream []byte
	for _, f := range frames {
		stream = append(stream, encode(f)...)
	}
	r := newFrameReader(iotest.HalfReader(bytes.NewReader(stream)))
	for _, want := range frames {
		got, owned, err := r.next()
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("got type %d with %d bytes, want type %d with %d", got.kind, len(got.body), want.kind, len(want.body))
		}
		if owned != (len(encode(want)) > readBuffer) {
			t.Fatalf("type %d with %d bytes: owned %v", got.kind, len(got.body), owned)
		}
	}
	if _, _, err := r.next(); err != io.EOF {
		t.Fatalf("got %v at the end", err)
	}
}

func TestFramesThatAreCut(t *testing.T) {
	for _, f := range frames {
		all := encode(f)
		for _, n := range []int{1, 3, 4, 5, len(all) / 2, len(all) - 1} {
			if _, _, err := newFrameReader(bytes.NewReader(all[:n])).next(); err != io.ErrUnexpectedEOF {
				t.Fatalf("type %d, %d of %d bytes: got %v", f.kind, n, len(all), err)
			}
		}
	}
}

func TestMalformedFrames(t *testing.T) {
	head := func(size uint32, t frameType, call uint64, rest ...byte) []byte {
		b := appendHead(nil, int(size)-headBytes, t, call)
		return append(b, rest...)
	}
	for name, b := range map[string][]byte{
		"empty":             {0, 0, 0, 0},
		"no call":           {0, 0, 0, 1, byte(frameCancel)},
		"too long":          head(maxFrame+1, frameRequest, 1),
		"unknown type":      head(headBytes, framePong+1, 1),
		"numbered ping":     head(headBytes, framePing, 1),
		"answer to nothing": head(headBytes, frameAnswer, 0),
		"cancel with more":  head(headBytes+1, frameCancel, 1, 0),
		"short request":     head(headBytes+9, frameRequest, 1, make([]byte, 9)...),
		"long group":        head(headBytes+10, frameRequest, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1),
		"long timeout":      head(headBytes+10, frameRequest, 1, 255, 0, 0, 0, 0, 0, 0, 0, 1, 0),
		"no code":           head(headBytes, frameRefusal, 1),
		"long detail":       head(headBytes+MaxDetail+2, frameRefusal, 1, make([]byte, MaxDetail+2)...),
		"long failure":      head(headBytes+MaxDetail+1, frameFailure, 1, make([]byte, MaxDetail+1)...),
		"long answer":       head(headBytes+MaxBody+1, frameAnswer, 1, make([]byte, MaxBody+1)...),
	} {
		if _, _, err := newFrameReader(bytes.NewReader(b)).next(); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// FuzzFrames reads a stream of anything: it ends with an error or at its end, and every
// frame that is not void says what it said when it is encoded again.
func FuzzFrames(f *testing.F) {
	for _, fr := range frames {
		if all := encode(fr); len(all) < 4096 {
			f.Add(all)
			f.Add(append(all, encode(frame{kind: framePing})...))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := newFrameReader(bytes.NewReader(b))
		for at := 0; ; {
			got, _, err := r.next()
			if err != nil {
				if err != io.EOF && err != io.ErrUnexpectedEOF && !errors.Is(err, ErrMalformed) {
					t.Fatal(err)
				}
				return
			}
			again := encode(got)
			if got.kind == frameVoid {
				again = appendHead(nil, int(uint32(b[at])<<24|uint32(b[at+1])<<16|uint32(b[at+2])<<8|uint32(b[at+3]))-headBytes, frameVoid, got.call)
				at += lengthBytes + int(again[3]) + int(again[2])<<8 + int(again[1])<<16
				continue
			}
			if !bytes.Equal(again, b[at:at+len(again)]) {
				t.Fatalf("got %x, want %x", again, b[at:])
			}
			at += len(again)
		}
	})
}
