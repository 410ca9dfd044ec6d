package logstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/meshkv/meshkv/storage"
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
		value := appendEntry([]byte("before"), id, &want)[len("before"):]
		if len(value) != entrySize(&want) {
			t.Fatalf("got %d bytes, want %d", len(value), entrySize(&want))
		}
		var got raft.Log
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
		value := appendEntry(nil, id, &raft.Log{Index: 1, AppendedAt: at})
		if err := decodeEntry(id, value, &got); err != nil || !got.AppendedAt.IsZero() {
			t.Errorf("%v: got %v, %v", at, got.AppendedAt, err)
		}
	}
}

func genSpan(t *rapid.T) span {
	if rapid.Bool().Draw(t, "no entries") {
		return span{}
	}
	first := rapid.Uint64Range(1, 9).Draw(t, "first")
	return span{first, first + rapid.Uint64Range(0, 9).Draw(t, "more")}
}

func genRecord(t *rapid.T) record {
	r := record{
		kind:   rapid.SampledFrom([]recordKind{recordState, recordAdopt, recordRetire, recordAppend, recordMove, recordSpan, recordSet, recordSeal, recordClose}).Draw(t, "kind"),
		number: rapid.Uint32().Draw(t, "number"),
	}
	switch r.kind {
	case recordAdopt:
		r.name = rapid.StringN(0, 8, maxNameBytes).Draw(t, "name")
	case recordSpan:
		r.held = genSpan(t)
	case recordSet:
		r.key, r.value = rapid.StringN(0, 3, 9).Draw(t, "key"), rapid.SliceOfN(rapid.Byte(), 1, 20).Draw(t, "value")
	case recordAppend, recordMove:
		r.first = rapid.Uint64Range(1, 9).Draw(t, "index")
		for i := range rapid.Uint64Range(1, 4).Draw(t, "entries") {
			r.values = append(r.values, appendEntry(nil, entryID{r.number, r.first + i}, &raft.Log{Data: genBytes(t, "data")}))
		}
	case recordState:
		var last uint32
		for range rapid.IntRange(0, 3).Draw(t, "groups") {
			g := groupState{number: last, name: rapid.StringN(0, 8, maxNameBytes).Draw(t, "name"), held: genSpan(t), stable: map[string][]byte{}}
			last++
			for range rapid.IntRange(0, 4).Draw(t, "values") {
				g.stable[rapid.StringN(0, 3, 9).Draw(t, "key")] = rapid.SliceOfN(rapid.Byte(), 1, 20).Draw(t, "value")
			}
			r.groups = append(r.groups, g)
		}
		r.number = max(r.number, last)
	}
	return r
}

func TestRecordRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := genRecord(t)
		b := appendRecord([]byte("before"), want)[len("before"):]
		got, rest, err := parseRecord(append(bytes.Clone(b), "behind"...))
		if err != nil || string(rest) != "behind" || !reflect.DeepEqual(got, want) {
			t.Fatalf("got %+v, %q, %v, want %+v", got, rest, err, want)
		}
		if _, _, err := parseRecord(b[:rapid.IntRange(0, len(b)-1).Draw(t, "cut")]); err == nil {
			t.Fatal("parsed what is cut off")
		}
		for index, p := range got.entries(7, 100) {
			at := int(p.offset) - 100
			if p.segment != 7 || !bytes.Equal(b[at:at+int(p.length)], got.values[index-got.first]) {
				t.Fatalf("entry %d is not at %+v", index, p)
			}
		}
	})
}

// A frame is itself in its place alone, and with no bit flipped.
func TestFrame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		records := rapid.SliceOfN(rapid.Byte(), 0, 100).Draw(t, "records")
		at := site{rapid.Uint64().Draw(t, "store"), rapid.Uint32().Draw(t, "segment"), 8 * rapid.Int64Range(0, 10).Draw(t, "place")}
		commit := rapid.Uint64().Draw(t, "commit")
		b := finishFrame(append(make([]byte, frameHeadBytes), records...), at, commit)
		image := append(append(make([]byte, at.offset), b...), 1, 2, 3)
		f, ok := parseFrame(image, at)
		if !ok || f.commit != commit || !bytes.Equal(f.records, records) || f.end != at.offset+int64(len(b)) || f.end%frameAlign != 0 {
			t.Fatalf("got %+v, %v", f, ok)
		}
		elsewhere := at
		switch rapid.IntRange(0, 2).Draw(t, "what is wrong") {
		case 0:
			elsewhere.store++
		case 1:
			elsewhere.segment++
		case 2:
			elsewhere.offset += 8
			image = append(make([]byte, 8), image...)
		}
		if _, ok := parseFrame(image, elsewhere); ok {
			t.Fatal("parsed elsewhere")
		}
		image = append(append(make([]byte, at.offset), b...), 1, 2, 3)
		bit := rapid.IntRange(0, 8*(frameHeadBytes+len(records))-1).Draw(t, "bit")
		image[at.offset+int64(bit/8)] ^= 1 << (bit % 8)
		if _, ok := parseFrame(image, at); ok {
			t.Fatal("parsed with a flipped bit")
		}
	})
}

// torn tells what a crash leaves from what was damaged later.
func TestTorn(t *testing.T) {
	const size = 8 * sectorBytes
	at := site{store: 5, segment: 9, offset: 400}
	frameOf := func(at site, n int, commit uint64) []byte {
		return finishFrame(append(make([]byte, frameHeadBytes), bytes.Repeat([]byte{0xaa}, n)...), at, commit)
	}
	long := frameOf(at, 1500, 7)
	later := site{at.store, at.segment, at.offset + int64(len(long))}
	for name, c := range map[string]struct {
		change func(image []byte)
		want   bool
	}{
		"nothing written":        {func(image []byte) { clear(image[400:]) }, true},
		"first sector lost":      {func(image []byte) { clear(image[400:512]) }, true},
		"middle sector lost":     {func(image []byte) { clear(image[512:1024]) }, true},
		"last sector lost":       {func(image []byte) { clear(image[1536:]) }, true},
		"half a sector lost":     {func(image []byte) { clear(image[700:1024]) }, false},
		"bit of the head":        {func(image []byte) { image[405] ^= 1 }, false},
		"bit of the records":     {func(image []byte) { image[900] ^= 1 }, false},
		"lost before a commit":   {func(image []byte) { clear(image[512:1024]); copy(image[later.offset:], frameOf(later, 10, 8)) }, false},
		"head lost, commit":      {func(image []byte) { clear(image[400:512]); copy(image[later.offset:], frameOf(later, 10, 8)) }, false},
		"lost, garbage behind":   {func(image []byte) { clear(image[400:512]); copy(image[later.offset:], "garbage") }, true},
		"another commit":         {func(image []byte) { copy(image[400:], frameOf(at, 1500, 9)); clear(image[512:1024]) }, false},
		"head in two sectors":    {func(image []byte) { at := at; at.offset = 504; clear(image); copy(image[504:512], frameOf(at, 9, 7)) }, true},
		"short, and a later one": {func(image []byte) { clear(image[400:]); copy(image[2000:], frameOf(site{5, 9, 2000}, 10, 8)) }, false},
	} {
		image := make([]byte, size)
		copy(image[at.offset:], long)
		c.change(image)
		where := at
		if name == "head in two sectors" {
			where.offset = 504
		}
		if got := torn(image, where, 7); got != c.want {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
	}
}

// A segment of a later version is known as one.
func TestLaterVersion(t *testing.T) {
	dir := t.TempDir()
	seg, err := createSegment(dir, 1, 1, 8<<10, datasync)
	if err != nil {
		t.Fatal(err)
	}
	var head [segmentHeadBytes]byte
	if _, err := seg.file.ReadAt(head[:], 0); err != nil {
		t.Fatal(err)
	}
	head[8]++
	binary.LittleEndian.PutUint32(head[segmentHeadBytes-checksumBytes:], crc32.Checksum(head[:segmentHeadBytes-checksumBytes], castagnoli))
	if _, err := seg.file.WriteAt(head[:], 0); err != nil {
		t.Fatal(err)
	}
	if err := seg.file.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, nil); !errors.Is(err, storage.ErrFormat) || !errors.Is(err, storage.ErrDamaged) {
		t.Errorf("got %v, want ErrFormat and ErrDamaged", err)
	}
}

// FuzzEntry decodes any body behind a checksum that fits: what is decoded has one
// encoding.
func FuzzEntry(f *testing.F) {
	id := entryID{3, 7}
	key := id.appendKey(nil)
	for _, log := range []raft.Log{{}, {Term: 2, Type: raft.LogBarrier, Data: []byte("data"), Extensions: []byte("x"), AppendedAt: time.Unix(9, 9)}} {
		f.Add(appendEntry(nil, id, &log)[checksumBytes:])
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var log raft.Log
		value := binary.LittleEndian.AppendUint32(nil, checksum(key, body))
		value = append(value, body...)
		if err := decodeEntry(id, value, &log); err != nil {
			return
		}
		if back := appendEntry(nil, id, &log); !bytes.Equal(back, value) {
			t.Errorf("decoded %x, encoded %x", value, back)
		}
	})
}

// seeds are records of every kind.
func seeds() [][]byte {
	var all [][]byte
	for _, r := range []record{
		{kind: recordState, number: 3, groups: []groupState{
			{number: 1, name: "a", held: span{2, 5}, stable: map[string][]byte{"CurrentTerm": make([]byte, 8), "x": nil}},
			{number: 2, name: "b", stable: map[string][]byte{}},
		}},
		{kind: recordAdopt, number: 3, name: "c"},
		{kind: recordRetire, number: 2},
		{kind: recordAppend, number: 3, first: 7, values: [][]byte{appendEntry(nil, entryID{3, 7}, &raft.Log{Term: 1}), appendEntry(nil, entryID{3, 8}, &raft.Log{Data: []byte("data")})}},
		{kind: recordMove, number: 3, first: 8, values: [][]byte{appendEntry(nil, entryID{3, 8}, &raft.Log{Data: []byte("data")})}},
		{kind: recordSpan, number: 3, held: span{8, 8}},
		{kind: recordSet, number: 3, key: "key", value: []byte("value")},
		{kind: recordSeal, number: 10},
		{kind: recordClose},
	} {
		all = append(all, appendRecord(nil, r))
	}
	return all
}

// FuzzRecord parses any bytes: what is parsed has one encoding.
func FuzzRecord(f *testing.F) {
	for _, b := range seeds() {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, rest, err := parseRecord(b)
		if err != nil {
			return
		}
		if back := appendRecord(nil, r); !bytes.Equal(back, b[:len(b)-len(rest)]) {
			t.Errorf("parsed %x, encoded %x", b, back)
		}
	})
}

// FuzzReplay reads a segment with any records, in two frames whose checksums fit. It
// is refused, or leaves groups whose entries can be counted.
func FuzzReplay(f *testing.F) {
	all := seeds()
	f.Add(bytes.Join(all[:7], nil), all[7])
	f.Add(bytes.Join(all[:2], nil), bytes.Join(all[2:7], nil))
	f.Add(all[0], all[8])
	f.Fuzz(func(t *testing.T, first, second []byte) {
		if len(first)+len(second) > 32<<10 {
			return
		}
		image := make([]byte, 64<<10)
		at := site{1, 9, segmentHead}
		for i, records := range [][]byte{first, second} {
			b := finishFrame(append(make([]byte, frameHeadBytes), records...), at, uint64(i)+4)
			copy(image[at.offset:], b)
			at.offset += int64(len(b))
		}
		s := &Store{id: 1}
		r := &replay{store: s, bytes: uint64(len(image)), groups: make(map[uint32]*Group), names: make(map[string]uint32)}
		seg := &segment{number: 9, size: int64(len(image)), used: segmentHead}
		if err := r.segment(seg, image); err != nil {
			return
		}
		for number, g := range r.groups {
			if number != g.next.number || number >= r.next || r.names[g.next.name] != number ||
				uint64(len(g.places)) != g.next.held.count() || len(g.next.stable) > maxStableKeys {
				t.Errorf("group %d: %+v with %d places", number, g.next, len(g.places))
			}
		}
	})
}
