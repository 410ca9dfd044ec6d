package machine

import (
	"bytes"
	"encoding/binary"
	"errors"
	"reflect"
	"sync"
	"testing"

	"github.com/cespare/xxhash/v2"
	"pgregory.net/rapid"
)

// samples are one command of each kind.
func samples() []Command {
	bodies := []Body{
		&Txn{
			Compares: []Compare{{Span{"a", "b"}, TargetValue, Greater, 1, []byte("v")}, {Span{Key: "l"}, TargetToken, Equal, 3, []byte{}}},
			Then:     []Op{&Put{"k", []byte("v"), 1, true, false, true}, &Get{Span{"a", "z"}, 3, 4, true, false, true}},
			Else:     []Op{&Delete{Prefix("q"), true}, &Txn{Then: []Op{&Put{Key: "n", Value: []byte{}}}}},
		},
		&Compact{7}, &SetQuota{1 << 40}, &Grant{1, MinTTL}, &Revoke{2}, &Expire{[]LeaseID{3, 4}},
		&Acquire{"l", ClaimID{1, 2}, Place, 3, true, 4, []byte("v")}, &Release{"l", 5}, &Abort{"l", ClaimID{1, 2}}, &EndDelay{"l", 6}, &Proclaim{"l", 7, []byte("w")},
		&DefinePool{Pool{"p", 1, 9}}, &RemovePool{"p"}, &Allocate{"p", 2, 4, true, 8, 1, "label"}, &Free{"p", 8, 9},
		&Checkpoint{[]Left{{3, 500}, {4, 0}}},
	}
	var all []Command
	for i, b := range bodies {
		all = append(all, Command{Wall: int64(i), Body: b}, Command{Request: Request{"client", 3, 2, 1}, Body: b})
	}
	return all
}

func TestCommandsRoundTrip(t *testing.T) {
	seen := map[kind]bool{}
	for _, c := range samples() {
		b := encode(t, c)
		var got Command
		if err := got.UnmarshalBinary(b); err != nil || !reflect.DeepEqual(got, c) {
			t.Fatalf("got %+v, %v, want %+v", got, err, c)
		}
		seen[c.Body.kind()] = true
		for n := range b {
			wantErr(t, got.UnmarshalBinary(b[:n]), ErrMalformed)
		}
		wantErr(t, got.UnmarshalBinary(append(bytes.Clone(b), 0)), ErrMalformed)
	}
	for k := kind(1); newBody(k) != nil; k++ {
		if !seen[k] {
			t.Errorf("no sample of kind %d", k)
		}
	}
}

func TestRefusedBytes(t *testing.T) {
	valid := encode(t, Command{Body: puts("k")})
	version := bytes.Clone(valid)
	version[1] = 2
	unknown := bytes.Clone(valid)
	unknown[2] = 127
	later := append([]byte{0x93, 2}, 0xc0, 0xc0) // another shape altogether
	m := New()
	for i, c := range []struct {
		cmd  []byte
		want error
	}{
		{nil, ErrMalformed}, {[]byte{0xdd, 0xff, 0xff, 0xff, 0xff}, ErrMalformed}, {version, ErrUnknownVersion}, {later, ErrUnknownVersion},
		{unknown, ErrUnknownCommand}, {make([]byte, MaxCommand+1), ErrTooLarge}, {bytes.Repeat([]byte{0x91}, 100_000), ErrMalformed},
	} {
		before := m.View().Status()
		res := m.Apply(uint64(i+1), c.cmd)
		before.Applied++
		if res.Err != c.want || m.View().Status() != before {
			t.Errorf("%d: got error %v, want %v", i, res.Err, c.want)
		}
	}
	wantErr(t, m.Apply(7, valid).Err, ErrApplied)
	wantErr(t, m.Apply(8, valid).Err, nil)
}

func TestBoundsOfCommands(t *testing.T) {
	long := string(make([]byte, MaxKey+1))
	for i, c := range []Command{
		{Body: &Grant{1, MinTTL - 1}}, {Body: &Grant{1, MaxTTL + 1}}, {Body: &Grant{1 << 63, MinTTL}}, {Body: &Expire{}}, {Body: &Expire{make([]LeaseID, MaxExpired+1)}},
		{Body: &Checkpoint{}}, {Body: &Checkpoint{make([]Left, MaxExpired+1)}}, {Body: &Checkpoint{[]Left{{1, MaxTTL + 1}}}},
		{Body: &Acquire{Name: "l", Mode: Exclusive, Places: 1}}, {Body: &Acquire{Name: "l", Mode: Place}}, {Body: &Acquire{Name: "l"}},
		{Body: &Acquire{Name: "l", Mode: Place + 1}}, {Body: &Acquire{Mode: Exclusive}}, {Body: &Acquire{Name: "l", Mode: Exclusive, Delay: MaxTTL + 1}},
		{Body: &DefinePool{Pool{"p", 2, 1}}}, {Body: &Allocate{Pool: "p"}}, {Body: &Allocate{Pool: "p", Size: 1, Label: long}}, {Body: &RemovePool{long}},
		{Wall: -1, Body: &Compact{1}}, {Wall: maxWall + 1, Body: &Compact{1}},
		{Request: Request{Number: 1}, Body: &Compact{1}}, {Request: Request{Client: "c"}, Body: &Compact{1}}, {Request: Request{Client: long, Number: 1}, Body: &Compact{1}},
	} {
		if _, err := c.AppendBinary(nil); err != ErrMalformed {
			t.Errorf("%d, %T: got error %v", i, c.Body, err)
		}
	}
}

// full is a machine with something of everything.
func full(t tb) *Machine {
	r := newRig(t)
	session(r, 1)
	session(r, 2)
	r.must(puts("a", "b", "c"))
	r.must(&Txn{Then: []Op{&Put{Key: "a", Lease: 1}, &Delete{Span: Span{Key: "b"}}}})
	r.must(&Compact{3})
	r.request(Request{Client: "c", Number: 4, Floor: 1, Since: 0}, puts("a"))
	r.request(Request{Client: "d", Number: 1}, &Txn{Then: []Op{puts("x"), &Get{Span: Prefix("")}}})
	r.must(&Acquire{Name: "l", Claim: ClaimID{Session: 1}, Mode: Exclusive, Delay: 9, Value: []byte("v")})
	r.must(&Acquire{Name: "l", Claim: ClaimID{Session: 2}, Mode: Shared})
	r.must(&Acquire{Name: "s", Claim: ClaimID{Session: 2}, Mode: Place, Places: 2})
	r.must(&DefinePool{Pool{"p", 5, 50}})
	r.must(&Allocate{Pool: "p", Size: 4, Align: 4, Session: 2, Label: "x"})
	r.must(&Allocate{Pool: "p", Size: 1})
	r.must(&Expire{[]LeaseID{1}})
	r.must(&Checkpoint{[]Left{{2, 700}}})
	r.swap()
	return r.m
}

func snapshot(t tb, m *Machine) []byte {
	t.Helper()
	var buf bytes.Buffer
	if err := m.View().Snapshot(&buf); err != nil {
		t.Fatalf("snapshot: %v", err)
	}
	return buf.Bytes()
}

func TestDamagedSnapshots(t *testing.T) {
	m := full(t)
	good := snapshot(t, m)
	other := New()
	other.Apply(1, encode(t, Command{Body: puts("other")}))
	digest := other.View().Digest()
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1 << (i % 8)
		if err := other.Restore(bytes.NewReader(bad)); !errors.Is(err, ErrSnapshot) && !errors.Is(err, ErrUnknownVersion) {
			t.Fatalf("bit of byte %d flipped: got error %v", i, err)
		}
		if err := other.Restore(bytes.NewReader(good[:i])); !errors.Is(err, ErrSnapshot) {
			t.Fatalf("truncated to %d: got error %v", i, err)
		}
	}
	if other.View().Digest() != digest {
		t.Fatal("a damaged snapshot changed the state")
	}
	if err := other.Restore(bytes.NewReader(append(good, "more"...))); err != nil || other.View().Digest() != m.View().Digest() {
		t.Fatalf("got error %v", err)
	}
}

// resealed gives a damaged snapshot the checksum that it must have.
func resealed(b []byte) []byte {
	return binary.BigEndian.AppendUint64(bytes.Clone(b[:len(b)-8]), xxhash.Sum64(b[:len(b)-8]))
}

func TestLaterSnapshot(t *testing.T) {
	b := snapshot(t, New())
	b[len(snapshotMagic)+4+2] = snapshotVersion + 1
	wantWrapped(t, New().Restore(bytes.NewReader(resealed(b))), ErrUnknownVersion)
}

func wantWrapped(t *testing.T, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Fatalf("got error %v, want %v", got, want)
	}
}

// brokenPipe fails after n bytes.
type brokenPipe struct{ n int }

var errPipe = errors.New("broken pipe")

func (p *brokenPipe) Write(b []byte) (int, error) {
	if p.n -= len(b); p.n < 0 {
		return 0, errPipe
	}
	return len(b), nil
}

func (p *brokenPipe) Read([]byte) (int, error) { return 0, errPipe }

func TestSnapshotReportsErrors(t *testing.T) {
	v := full(t).View()
	size := len(snapshot(t, full(t)))
	for _, n := range []int{0, size - 9, size - 1} {
		wantWrapped(t, v.Snapshot(&brokenPipe{n}), errPipe)
	}
	wantWrapped(t, New().Restore(&brokenPipe{}), errPipe)
}

// A view stands still, and may be read while the machine goes on: the race detector
// watches.
func TestViewBesideApply(t *testing.T) {
	m := full(t)
	index := m.applied
	for range 20 {
		v := m.View()
		digest := v.Digest()
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				res, err := v.Range(&Get{Span: Prefix(""), Revision: 4})
				if err != nil || len(res.Entries) == 0 {
					t.Errorf("range: %v", err)
				}
				if v.Digest() != digest {
					t.Error("the view has changed")
				}
			})
		}
		for range 20 {
			index++
			m.Apply(index, encode(t, Command{Request: Request{Client: "c", Number: index}, Body: puts("a", "b", string(rune(index)))}))
		}
		for _, b := range []Body{
			&Acquire{Name: "l", Claim: ClaimID{2, index}, Mode: Shared}, &Acquire{Name: "other", Claim: ClaimID{2, 1}, Mode: Shared}, &Abort{"other", ClaimID{2, 1}},
			&Allocate{Pool: "p", Size: 1, Session: 2}, &Grant{TTL: MinTTL}, &DefinePool{Pool{"q", 0, index}}, &Acquire{Name: "s", Claim: ClaimID{2, index}, Mode: Place, Places: 2},
		} {
			index++
			m.Apply(index, encode(t, Command{Body: b}))
		}
		wg.Wait()
	}
}

// The same digest means the same state, so one that differs in anything differs.
func TestDigestSeesEverything(t *testing.T) {
	seen := map[uint64]int{}
	m := full(t)
	index := m.applied + 1
	for i, b := range []Body{
		&Compact{1}, &Compact{5}, puts("a"), puts("b"), &SetQuota{5}, &Grant{5, MinTTL}, &Revoke{2}, &Acquire{Name: "z", Claim: ClaimID{2, 5}, Mode: Shared},
		&Acquire{Name: "z", Claim: ClaimID{2, 5}, Mode: Exclusive}, &DefinePool{Pool{"p", 4, 50}}, &Allocate{Pool: "p", Size: 1}, &Allocate{Pool: "p", Size: 1, Label: "y"},
		&Checkpoint{[]Left{{2, 0}}}, &Checkpoint{[]Left{{2, 1}}},
	} {
		next := restored(t, m.View())
		next.Apply(index, encode(t, Command{Body: b}))
		d := next.View().Digest()
		if j, twice := seen[d]; twice {
			t.Fatalf("commands %d and %d lead to the same digest", i, j)
		}
		seen[d] = i
	}
}

func TestDatesRise(t *testing.T) {
	m := New()
	var last Result
	for i, wall := range []int64{1000, 5000, 2000, 0} {
		res := m.Apply(uint64(i+1), encode(t, Command{Wall: wall, Body: puts("k")}))
		if last.Changes != nil && res.Changes[0].Modified <= last.Changes[0].Modified {
			t.Fatalf("dated %v after %v", res.Changes[0].Modified, last.Changes[0].Modified)
		}
		last = res
	}
	if got := last.Changes[0].Modified.WallMs(); got != 5000 {
		t.Fatalf("dated %d", got)
	}
}

// FuzzApply applies arbitrary bytes to a machine with something of everything: it must
// not panic, do the same twice, and leave a state that survives a snapshot.
func FuzzApply(f *testing.F) {
	for _, c := range samples() {
		f.Add(encode(f, c))
	}
	image := snapshot(f, full(f))
	f.Fuzz(func(t *testing.T, cmd []byte) {
		a, b := New(), New()
		if err := errors.Join(a.Restore(bytes.NewReader(image)), b.Restore(bytes.NewReader(image))); err != nil {
			t.Fatal(err)
		}
		if x, y := a.Apply(1000, cmd), b.Apply(1000, cmd); !reflect.DeepEqual(x, y) {
			t.Fatalf("got %+v and %+v", x, y)
		}
		if want := a.View().Digest(); b.View().Digest() != want || restored(t, a.View()).View().Digest() != want {
			t.Fatal("digests differ")
		}
	})
}

// FuzzRestore restores arbitrary bytes under a right checksum: what is accepted must
// be a state that goes on working.
func FuzzRestore(f *testing.F) {
	f.Add(snapshot(f, New()))
	f.Add(snapshot(f, full(f)))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < 8 {
			return
		}
		m := New()
		if m.Restore(bytes.NewReader(resealed(b))) != nil {
			return
		}
		want := m.View().Digest()
		if restored(t, m.View()).View().Digest() != want {
			t.Fatal("digests differ")
		}
		index := m.applied
		for _, c := range samples() {
			if index++; index == 0 {
				return
			}
			m.Apply(index, encode(t, c))
		}
	})
}

// A long log of everything, on two machines.
func TestReplicasAgree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := newRig(t)
		bk := &book{revision: 4}
		for range rapid.IntRange(1, 60).Draw(t, "commands") {
			c := Command{Wall: int64(rapid.IntRange(0, 3).Draw(t, "wall"))}
			if rapid.Bool().Draw(t, "request") {
				c.Request = Request{pick(t, "client", "c", "d"), rapid.Uint64Range(1, 6).Draw(t, "number"), rapid.Uint64Range(0, 3).Draw(t, "floor"), rapid.Uint64Range(0, 9).Draw(t, "since")}
			}
			id, token := LeaseID(rapid.IntRange(1, 3).Draw(t, "lease")), Token(rapid.Uint64Range(0, 9).Draw(t, "token"))
			c.Body = pick[Body](t, "body", &Grant{id, MinTTL}, &Revoke{id}, &Expire{[]LeaseID{id, 2}}, &Checkpoint{[]Left{{id, uint64(token)}}}, &Compact{Revision(token)},
				&Acquire{Name: "l", Claim: ClaimID{id, 1}, Mode: Exclusive, Delay: uint64(token) % 2}, &Acquire{Name: "l", Claim: ClaimID{id, 2}, Mode: Shared},
				&Release{"l", token}, &EndDelay{"l", token}, &DefinePool{Pool{"p", 0, uint64(token)}}, &Allocate{Pool: "p", Size: 1, Session: id}, &Free{"p", 0, token},
				bk.genTxn(t, 1), bk.genTxn(t, 1), bk.genTxn(t, 1))
			r.command(c)
			if rapid.IntRange(0, 9).Draw(t, "swap") == 0 {
				r.swap()
			}
		}
		r.same()
	})
}
