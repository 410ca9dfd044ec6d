package wire

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/vmihailenco/msgpack/v5"
	"pgregory.net/rapid"
)

func genBytes(t *rapid.T, label string, nilToo bool) []byte {
	switch rapid.IntRange(0, 4).Draw(t, label+" kind") {
	case 0:
		if nilToo {
			return nil
		}
	case 1:
		n := rapid.SampledFrom([]int{255, 256, 65535, 65536}).Draw(t, label+" size")
		return bytes.Repeat([]byte{'x'}, n)
	}
	return append([]byte{}, rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(t, label)...)
}

func genString(t *rapid.T, label string) string { return string(genBytes(t, label, false)) }

func genVersion(t *rapid.T) Version {
	return Version{rapid.Uint64().Draw(t, "inc"), rapid.Uint64().Draw(t, "seq")}
}

// requestTypes are all that there are.
func requestTypes() (all []RequestType) {
	for typ := Put; typ <= Admin; typ++ {
		all = append(all, typ)
	}
	return append(all, Update, View, Elements)
}

func genRequest(t *rapid.T) Request {
	r := Request{
		ID:      rapid.Uint64().Draw(t, "id"),
		Type:    rapid.SampledFrom(requestTypes()).Draw(t, "type"),
		Timeout: time.Duration(rapid.IntRange(0, 3_600_000_000).Draw(t, "timeout")) * time.Microsecond,
	}
	switch r.Type {
	case Credit:
		r.Limit = rapid.Uint64().Draw(t, "limit")
	case ForceLeave:
		r.Key = genString(t, "member")
	case Admin:
		r.Value = genBytes(t, "admin", false)
	case Put, Get, Delete, List, Watch, Info, Digest, StrongCall, Update, View, Elements:
		r.Keyspace = genString(t, "keyspace")
	}
	switch r.Type {
	case Put, Get, Delete, List, Watch:
		r.Key = genString(t, "key")
		r.Flags = Flags(rapid.Uint16().Draw(t, "flags"))
	}
	switch r.Type {
	case Put:
		r.Value = genBytes(t, "value", false)
		r.TTL = time.Duration(rapid.Int64().Draw(t, "ttl"))
		r.IfVersion = genVersion(t)
		r.Session = rapid.Uint64().Draw(t, "session")
		r.Acks = rapid.Uint64().Draw(t, "acks")
	case Get:
		r.After = genString(t, "after")
		r.Revision = rapid.Uint64().Draw(t, "revision")
	case Delete:
		r.IfVersion = genVersion(t)
		r.Acks = rapid.Uint64().Draw(t, "acks")
	case List:
		r.After = genString(t, "after")
		r.Limit = rapid.Uint64().Draw(t, "limit")
		r.Revision = rapid.Uint64().Draw(t, "revision")
	case Watch:
		r.After = genString(t, "after")
		r.Limit = rapid.Uint64().Draw(t, "limit")
	case StrongCall, Update, View, Elements:
		r.Value = genBytes(t, "call", false)
	}
	return r
}

func genEntry(t *rapid.T) Entry {
	e := Entry{
		Key: genString(t, "key"), Value: genBytes(t, "value", true), Version: genVersion(t), Origin: genString(t, "origin"),
		Modified: rapid.Int64().Draw(t, "modified"), Expires: rapid.Int64().Draw(t, "expires"), Ephemeral: rapid.Bool().Draw(t, "ephemeral"),
	}
	if rapid.Bool().Draw(t, "typed") {
		e.Type = genString(t, "type")
	}
	for range rapid.IntRange(0, 2).Draw(t, "siblings") {
		e.Siblings = append(e.Siblings, Sibling{genBytes(t, "sibling", true), genVersion(t), genString(t, "origin"), rapid.Int64().Draw(t, "modified")})
	}
	return e
}

func genReply(t *rapid.T) Reply {
	r := Reply{ID: rapid.Uint64().Draw(t, "id"), Type: ReplyType(rapid.IntRange(1, int(Draining)).Draw(t, "type"))}
	switch r.Type {
	case Error:
		r.Code, r.Message = genString(t, "code"), genString(t, "message")
		r.Acked, r.Want = rapid.Uint64().Draw(t, "acked"), rapid.Uint64().Draw(t, "want")
	case Written:
		r.Version, r.Deleted = genVersion(t), rapid.Bool().Draw(t, "deleted")
	case Found:
		r.Entry = genEntry(t)
	case Page:
		r.More = rapid.Bool().Draw(t, "more")
		for range rapid.IntRange(0, 20).Draw(t, "entries") {
			r.Entries = append(r.Entries, genEntry(t))
		}
	case Happened:
		for range rapid.IntRange(0, 3).Draw(t, "events") {
			ev := Event{Type: EventType(rapid.IntRange(1, int(EventHeartbeat)).Draw(t, "event")), Reason: genString(t, "reason"), Cursor: genString(t, "cursor"), More: rapid.Bool().Draw(t, "more")}
			if ev.Type == EventPut || ev.Type == EventDelete {
				ev.Entry = genEntry(t)
			}
			if rapid.Bool().Draw(t, "has prev") {
				prev := genEntry(t)
				ev.Prev = &prev
			}
			r.Events = append(r.Events, ev)
		}
	case Document:
		r.Body = genBytes(t, "body", false)
	}
	return r
}

// longer appends elements that this version does not know to the array of a
// frame, which must have a short head.
func longer(t *rapid.T, frame []byte) []byte {
	extra, err := msgpack.Marshal(map[string]any{"a": []any{1, "x", nil, 1.5, true}, "b": time.Unix(1, 1)})
	if err != nil {
		t.Fatal(err)
	}
	out := bytes.Clone(frame)
	if out[headerBytes]&0xf0 != 0x90 || out[headerBytes] >= 0x9e {
		t.Fatalf("array head %x", out[headerBytes])
	}
	out[headerBytes] += 2
	out = append(append(out, extra...), 0xcd, 1, 2)
	binary.BigEndian.PutUint32(out, uint32(len(out)-headerBytes))
	return out
}

func TestRequestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := genRequest(t)
		frame := AppendRequest([]byte("before"), &want)[len("before"):]
		checkIsMsgpack(t, frame)
		for _, f := range [][]byte{frame, longer(t, frame)} {
			payload, err := ReadFrame(bufio.NewReader(bytes.NewReader(f)), nil, 1<<30)
			if err != nil {
				t.Fatal(err)
			}
			var got Request
			if err := DecodeRequest(payload, &got); err != nil || !reflect.DeepEqual(got, want) {
				t.Fatalf("got %+v, %v; want %+v", got, err, want)
			}
		}
	})
}

func TestReplyRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := genReply(t)
		frame := AppendReply(nil, &want)
		checkIsMsgpack(t, frame)
		for _, f := range [][]byte{frame, longer(t, frame)} {
			payload, err := ReadFrame(bufio.NewReader(bytes.NewReader(f)), nil, 1<<30)
			if err != nil {
				t.Fatal(err)
			}
			var got Reply
			if err := DecodeReply(payload, &got); err != nil || !reflect.DeepEqual(got, want) {
				t.Fatalf("got %+v, %v; want %+v", got, err, want)
			}
		}
	})
}

// checkIsMsgpack reads a frame with another implementation.
func checkIsMsgpack(t *rapid.T, frame []byte) {
	d := msgpack.NewDecoder(bytes.NewReader(frame[headerBytes:]))
	v, err := d.DecodeInterface()
	if err != nil {
		t.Fatalf("not msgpack: %v", err)
	}
	if _, ok := v.([]any); !ok {
		t.Fatalf("got a %T, want an array", v)
	}
	if _, err := d.DecodeInterface(); !errors.Is(err, io.EOF) {
		t.Fatalf("after the array: %v", err)
	}
}

// TestTruncated: no prefix of a payload is taken for a whole one.
func TestTruncated(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		request, reply := genRequest(t), genReply(t)
		for i, frame := range [][]byte{AppendRequest(nil, &request), AppendReply(nil, &reply)} {
			payload := frame[headerBytes:]
			n := rapid.IntRange(0, len(payload)-1).Draw(t, "length")
			var err error
			if i == 0 {
				err = DecodeRequest(payload[:n:n], new(Request))
			} else {
				err = DecodeReply(payload[:n:n], new(Reply))
			}
			if !errors.Is(err, ErrFrame) {
				t.Fatalf("%d of %d bytes: got %v", n, len(payload), err)
			}
		}
	})
}

// TestOlderRequests: what a client of an older version sends is understood.
func TestOlderRequests(t *testing.T) {
	for _, tt := range []struct {
		r     Request
		later int // fields at the end that it does not know, a byte each
	}{
		{Request{Type: Put, Keyspace: "k", Key: "a", Value: []byte("v")}, 1},
		{Request{Type: Get, Keyspace: "k", Key: "a", After: "5-1"}, 1},
		{Request{Type: Delete, Keyspace: "k", Key: "a", Flags: Durable}, 2},
		{Request{Type: List, Keyspace: "k", Limit: 7}, 1},
	} {
		frame := AppendRequest(nil, &tt.r)
		payload := frame[headerBytes : len(frame)-tt.later]
		payload[0] -= byte(tt.later)
		var got Request
		if err := DecodeRequest(payload, &got); err != nil || !reflect.DeepEqual(got, tt.r) {
			t.Errorf("%v: got %+v, %v; want %+v", tt.r.Type, got, err, tt.r)
		}
	}
}

func TestNumbersOfOtherEncoders(t *testing.T) {
	for _, tt := range []struct {
		in   []byte
		want int64
	}{
		{[]byte{0xff}, -1}, {[]byte{0xe0}, -32}, {[]byte{0xd0, 0x80}, -128}, {[]byte{0xd1, 0xff, 0}, -256}, {[]byte{0xd2, 0, 0, 1, 0}, 256},
		{[]byte{0x7f}, 127}, {[]byte{0xcc, 0xff}, 255}, {[]byte{0xd3, 0x80, 0, 0, 0, 0, 0, 0, 0}, -1 << 63},
	} {
		d := Decoder{b: tt.in}
		if got := d.Int(); got != tt.want || d.err != nil || len(d.b) > 0 {
			t.Errorf("int %x: got %d, %v", tt.in, got, d.err)
		}
		d = Decoder{b: tt.in}
		if got := d.Uint(); (d.err == nil) != (tt.want >= 0) || tt.want >= 0 && got != uint64(tt.want) {
			t.Errorf("uint %x: got %d, %v", tt.in, got, d.err)
		}
	}
	d := Decoder{b: []byte{0xcf, 0xff, 0, 0, 0, 0, 0, 0, 0}}
	if d.Int(); !errors.Is(d.err, ErrFrame) {
		t.Errorf("a number beyond int64: got %v", d.err)
	}
}

func TestReadFrame(t *testing.T) {
	head := func(n uint32, rest string) string {
		return string(binary.BigEndian.AppendUint32(nil, n)) + rest
	}
	big := strings.Repeat("x", 300<<10)
	for _, tt := range []struct {
		name, in string
		want     string
		err      error
	}{
		{"one", head(3, "abcd"), "abc", nil},
		{"large", head(300<<10, big), big, nil},
		{"end", "", "", io.EOF},
		{"half a length", "\x00\x00", "", io.ErrUnexpectedEOF},
		{"half a payload", head(3, "ab"), "", io.ErrUnexpectedEOF},
		{"no payload", head(3, ""), "", io.ErrUnexpectedEOF},
		{"empty", head(0, "x"), "", ErrFrame},
		{"too long", head(1<<20+1, "x"), "", ErrFrame},
	} {
		got, err := ReadFrame(bufio.NewReader(strings.NewReader(tt.in)), make([]byte, 0, 2), 1<<20)
		if string(got) != tt.want || !errors.Is(err, tt.err) {
			t.Errorf("%s: got %.10q, %v; want %.10q, %v", tt.name, got, err, tt.want, tt.err)
		}
	}
}

// TestReadFrameAllocates: an announced length costs nothing until bytes come.
func TestReadFrameAllocates(t *testing.T) {
	in := binary.BigEndian.AppendUint32(nil, MaxReply)
	bytesPer := testing.Benchmark(func(b *testing.B) {
		r := bytes.NewReader(in)
		br := bufio.NewReader(r)
		b.ReportAllocs()
		for b.Loop() {
			r.Reset(in)
			br.Reset(r)
			ReadFrame(br, nil, MaxReply)
		}
	}).AllocedBytesPerOp()
	if bytesPer > 2*firstRead {
		t.Errorf("allocated %d bytes for a frame that did not come", bytesPer)
	}
}

func FuzzDecodeRequest(f *testing.F) {
	for _, typ := range requestTypes() {
		f.Add(AppendRequest(nil, &Request{ID: 1, Type: typ, Keyspace: "k", Key: "key", Value: []byte("v"), After: "5-1", Limit: 7})[headerBytes:])
	}
	f.Add([]byte{0x93, 1, 14, 0xdd, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, payload []byte) {
		var r, again Request
		if err := DecodeRequest(payload, &r); err != nil {
			if !errors.Is(err, ErrFrame) {
				t.Errorf("got %v", err)
			}
			return
		}
		if err := DecodeRequest(AppendRequest(nil, &r)[headerBytes:], &again); err != nil || r.Key != again.Key || r.ID != again.ID || !bytes.Equal(r.Value, again.Value) {
			t.Errorf("encoded again: got %+v, %v; want %+v", again, err, r)
		}
	})
}

func FuzzDecodeReply(f *testing.F) {
	entry := Entry{Key: "k", Value: []byte("v"), Siblings: []Sibling{{Value: []byte("w")}}}
	for typ := Error; typ <= Draining; typ++ {
		f.Add(AppendReply(nil, &Reply{ID: 1, Type: typ, Entry: entry, Entries: []Entry{entry, entry},
			Events: []Event{{Type: EventPut, Entry: entry, Prev: &entry}}, Body: []byte("b")})[headerBytes:])
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		var r, again Reply
		if err := DecodeReply(payload, &r); err != nil {
			if !errors.Is(err, ErrFrame) {
				t.Errorf("got %v", err)
			}
			return
		}
		if err := DecodeReply(AppendReply(nil, &r)[headerBytes:], &again); err != nil || len(again.Entries) != len(r.Entries) || len(again.Events) != len(r.Events) {
			t.Errorf("encoded again: got %+v, %v; want %+v", again, err, r)
		}
	})
}
