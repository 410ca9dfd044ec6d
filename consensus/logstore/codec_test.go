package logstore

import (
	"bytes"
	"maps"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"pgregory.net/rapid"
)

func genBytes(t *rapid.T, label string) []byte {
	b := rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(t, label)
	if len(b) == 0 {
		return nil // an entry does not tell nil from empty
	}
	return b
}

func genTime(t *rapid.T) time.Time {
	if rapid.Bool().Draw(t, "no time") {
		return time.Time{}
	}
	return time.Unix(0, rapid.Int64Min(1).Draw(t, "time"))
}

func TestEntryRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := entryID{rapid.Uint32().Draw(t, "group"), rapid.Uint64().Draw(t, "index")}
		want := raft.Log{
			Index: id.index, Term: rapid.Uint64().Draw(t, "term"), Type: raft.LogType(rapid.Byte().Draw(t, "type")),
			Data: genBytes(t, "data"), Extensions: genBytes(t, "extensions"), AppendedAt: genTime(t),
		}
		key := id.appendKey(nil)
		value := appendEntry([]byte("before"), key, &want)[len("before"):]
		if len(value) != entrySize(&want) {
			t.Fatalf("got %d bytes, want %d", len(value), entrySize(&want))
		}
		var got raft.Log
		if back, ok := keyID(key); !ok || back != id {
			t.Fatalf("key: got %v, %v, want %v", back, ok, id)
		}
		if err := decodeEntry(id, value, &got); err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("got %+v, %v, want %+v", got, err, want)
		}
		// No flipped bit, no other place and no shorter value passes.
		bit := rapid.IntRange(0, 8*len(value)-1).Draw(t, "bit")
		flipped := slices.Clone(value)
		flipped[bit/8] ^= 1 << (bit % 8)
		other := entryID{id.group ^ 1<<rapid.IntRange(0, 31).Draw(t, "group bit"), id.index}
		for name, err := range map[string]error{
			"flipped": decodeEntry(id, flipped, &got), "elsewhere": decodeEntry(other, value, &got),
			"cut": decodeEntry(id, value[:rapid.IntRange(0, len(value)-1).Draw(t, "cut")], &got),
		} {
			if err == nil {
				t.Fatalf("%s: decoded", name)
			}
		}
	})
}

// A time that nanoseconds cannot express is none, and never another one.
func TestEntryTimeOutOfRange(t *testing.T) {
	id := entryID{1, 1}
	for _, at := range []time.Time{time.Date(1, 2, 3, 4, 5, 6, 7, time.UTC), time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)} {
		var got raft.Log
		value := appendEntry(nil, id.appendKey(nil), &raft.Log{Index: 1, AppendedAt: at})
		if err := decodeEntry(id, value, &got); err != nil || !got.AppendedAt.IsZero() {
			t.Errorf("%v: got %v, %v", at, got.AppendedAt, err)
		}
	}
}

func TestRecordRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringN(1, 8, maxNameBytes).Draw(t, "name")
		want := record{number: rapid.Uint32().Draw(t, "number"), stable: map[string][]byte{}}
		if rapid.Bool().Draw(t, "entries") {
			want.held.first = rapid.Uint64Range(1, 9).Draw(t, "first")
			want.held.last = want.held.first + rapid.Uint64Range(0, 9).Draw(t, "more")
		}
		for range rapid.IntRange(0, 4).Draw(t, "values") {
			want.stable[rapid.StringN(0, 3, 9).Draw(t, "key")] = genBytes(t, "value")
		}
		value := appendRecord(nil, name, want)
		got, err := decodeRecord(name, value)
		if err != nil || got.number != want.number || got.held != want.held || !maps.EqualFunc(got.stable, want.stable, bytes.Equal) {
			t.Fatalf("got %+v, %v, want %+v", got, err, want)
		}
		if _, err := decodeRecord(name+"x", value); err == nil {
			t.Fatal("decoded for another group")
		}
		bit := rapid.IntRange(0, 8*len(value)-1).Draw(t, "bit")
		value[bit/8] ^= 1 << (bit % 8)
		if _, err := decodeRecord(name, value); err == nil {
			t.Fatal("decoded with a flipped bit")
		}
	})
}

// FuzzEntry decodes any body behind a checksum that fits: what is decoded has one
// encoding.
func FuzzEntry(f *testing.F) {
	id := entryID{3, 7}
	key := id.appendKey(nil)
	for _, log := range []raft.Log{{}, {Term: 2, Type: raft.LogBarrier, Data: []byte("data"), Extensions: []byte("x"), AppendedAt: time.Unix(9, 9)}} {
		f.Add(appendEntry(nil, key, &log)[checksumBytes:])
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var log raft.Log
		value := stamped(key, body)
		if err := decodeEntry(id, value, &log); err != nil {
			return
		}
		if back := appendEntry(nil, key, &log); !bytes.Equal(back, value) {
			t.Errorf("decoded %x, encoded %x", value, back)
		}
	})
}

// FuzzRecord is FuzzEntry for what is kept of a group. Its values need not be in
// order.
func FuzzRecord(f *testing.F) {
	for _, r := range []record{{}, {number: 1, held: span{2, 5}, stable: map[string][]byte{"CurrentTerm": make([]byte, 8), "": nil}}} {
		f.Add(appendRecord(nil, "a", r)[checksumBytes:])
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		value := stamped([]byte("a"), body)
		r, err := decodeRecord("a", value)
		if err != nil {
			return
		}
		if back := appendRecord(nil, "a", r); len(back) != len(value) || !r.held.valid() || len(r.stable) > maxStableKeys {
			t.Errorf("decoded %x to %+v", value, r)
		}
	})
}

// stamped is body behind its checksum.
func stamped(key, body []byte) []byte {
	sum := checksum(key, body)
	return append([]byte{byte(sum), byte(sum >> 8), byte(sum >> 16), byte(sum >> 24)}, body...)
}
