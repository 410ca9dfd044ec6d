package machine

import (
	"bytes"
	"reflect"
	"testing"

	"pgregory.net/rapid"
)

// tb is a *testing.T or a *rapid.T.
type tb interface {
	Helper()
	Fatalf(format string, args ...any)
}

func encode(t tb, c Command) []byte {
	t.Helper()
	b, err := c.AppendBinary(nil)
	if err != nil {
		t.Fatalf("encode %T: %v", c.Body, err)
	}
	return b
}

func restored(t tb, v *View) *Machine {
	t.Helper()
	var buf bytes.Buffer
	if err := v.Snapshot(&buf); err != nil {
		t.Fatalf("snapshot: %v", err)
	}
	m := New()
	if err := m.Restore(&buf); err != nil {
		t.Fatalf("restore: %v", err)
	}
	return m
}

// A rig applies one log to two machines, one of which is restored from a snapshot of
// the other now and then, and demands that they do the same.
type rig struct {
	t       tb
	m, twin *Machine
	index   uint64
}

func newRig(t tb) *rig { return &rig{t: t, m: New(), twin: New()} }

func (r *rig) command(c Command) Result {
	r.t.Helper()
	r.index++
	b := encode(r.t, c)
	res := r.m.Apply(r.index, b)
	if got := r.twin.Apply(r.index, b); !reflect.DeepEqual(got, res) {
		r.t.Fatalf("%T: replicas differ:\n%+v\n%+v", c.Body, res, got)
	}
	if (res.Changes != nil || res.Locks != nil) && res.Err != nil {
		r.t.Fatalf("%T: effects beside the error %v", c.Body, res.Err)
	}
	return res
}

func (r *rig) apply(b Body) Result {
	r.t.Helper()
	return r.command(Command{Wall: int64(r.index) * 10, Body: b})
}

// must applies what cannot fail.
func (r *rig) must(b Body) Result {
	r.t.Helper()
	res := r.apply(b)
	if res.Err != nil {
		r.t.Fatalf("%T: %v", b, res.Err)
	}
	return res
}

// refused applies what must fail so and change nothing.
func (r *rig) refused(b Body, want error) {
	r.t.Helper()
	if res := r.apply(b); res.Err != want {
		r.t.Fatalf("%T: got error %v, want %v", b, res.Err, want)
	}
}

// swap restores the twin from a snapshot of the other.
func (r *rig) swap() {
	r.t.Helper()
	r.twin = restored(r.t, r.m.View())
	r.same()
}

func (r *rig) same() {
	r.t.Helper()
	if a, b := r.m.View().Digest(), r.twin.View().Digest(); a != b {
		r.t.Fatalf("digests differ: %x, %x", a, b)
	}
	if a, b := r.m.View().Status(), r.twin.View().Status(); a != b {
		r.t.Fatalf("status differs: %+v, %+v", a, b)
	}
	if a, b := derived(r.m), derived(r.twin); a != b {
		r.t.Fatalf("what is derived differs: %v, %v", a, b)
	}
}

// derived are the sizes of what is not in snapshots.
func derived(m *Machine) [11]int {
	results := 0
	m.clients.Scan(func(c *client) bool {
		results += len(c.results)
		return true
	})
	return [...]int{
		int(m.bytes), int(m.kept), m.results, results, m.past.Len(), m.attached.Len(), m.locks.Len(), m.claims.Len(), m.owned.Len(), m.free.Len(), m.used.Len(),
	}
}

func puts(keys ...string) *Txn {
	t := &Txn{}
	for _, k := range keys {
		t.Then = append(t.Then, &Put{Key: k, Value: []byte(k)})
	}
	return t
}

func pick[T any](t *rapid.T, label string, from ...T) T {
	return rapid.SampledFrom(from).Draw(t, label)
}

func wantErr(t *testing.T, got, want error) {
	t.Helper()
	if got != want {
		t.Fatalf("got error %v, want %v", got, want)
	}
}
