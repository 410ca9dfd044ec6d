package machine

import (
	"errors"
	"testing"
)

// TestNothingIsGivenAgain: tokens, revisions and ids of sessions of a later epoch are above all that were
// given before, whether a group was recovered or a keyspace of the same name made anew.
func TestNothingIsGivenAgain(t *testing.T) {
	type given struct {
		token    Token
		revision Revision
		lease    LeaseID
	}
	use := func(m *Machine) (g given) {
		t.Helper()
		at := m.applied
		do := func(b Body) Result {
			t.Helper()
			at++
			res := m.Apply(at, encode(t, Command{Body: b}))
			if res.Err != nil {
				t.Fatalf("%T: %v", b, res.Err)
			}
			return res
		}
		g.lease = do(&Grant{TTL: MinTTL}).Lease
		g.token = do(&Acquire{Name: "lock", Claim: ClaimID{g.lease, 1}, Mode: Exclusive}).Token
		do(&Release{Name: "lock", Token: g.token})
		g.revision = do(&Txn{Then: []Op{&Put{Key: "key"}}}).Revision
		return g
	}
	above := func(what string, a, b given) {
		t.Helper()
		if a.token <= b.token || a.revision <= b.revision || a.lease <= b.lease {
			t.Errorf("%s: %+v after %+v", what, a, b)
		}
	}
	m := New()
	first := use(m)
	if first.revision != 2 {
		t.Errorf("the first write has revision %d, want 2", first.revision)
	}
	lost := use(m) // what the survivor did not hear of
	recovered := New()
	use(recovered)
	recovered.RaiseAfterLoss(1)
	after := use(recovered)
	above("recovered", after, lost)
	anew := New()
	anew.Begin(2)
	above("made anew", use(anew), after)
	for _, m := range []*Machine{recovered, anew} {
		if _, err := m.View().Events(lost.revision, 1); !errors.Is(err, ErrCompacted) {
			t.Errorf("a watch of before goes on: %v", err)
		}
	}
	if SameLife(uint64(lost.revision), uint64(after.revision)) || !SameLife(uint64(first.revision), uint64(lost.revision)) {
		t.Error("a recovery is not told from none by the revisions")
	}
}
