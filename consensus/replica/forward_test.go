package replica

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/meshkv/meshkv/consensus/calls"
	"github.com/meshkv/meshkv/consensus/group"
	"github.com/meshkv/meshkv/consensus/machine"
)

// A command given to any member is applied once, and what it did is seen there at its index.
func TestEveryMemberTakesCommands(t *testing.T) {
	run(t, 3, func(t *testing.T, r *rig) {
		for i, m := range r.members {
			before := m.View().Status().Applied
			d := mustDo(t, m, put("key", []byte(m.node)))
			v, err := m.ViewAt(t.Context(), d.Index)
			if err != nil {
				t.Fatal(err)
			}
			if valueAt(v, "key") != m.node || d.Index != uint64(i+1) || before > uint64(i) {
				t.Errorf("%s sees %q at %d", m.node, valueAt(v, "key"), d.Index)
			}
		}
	})
}

// An answer that is lost makes the attempt one of unknown outcome; the next one finds that the command was applied.
func TestLostAnswer(t *testing.T) {
	run(t, 3, func(t *testing.T, r *rig) {
		follower := r.followers(r.leader())[0]
		lost := 0
		r.carry(func(_ *member, kind calls.Kind, at func() ([]byte, error)) ([]byte, error) {
			answer, err := at()
			if kind == CallPropose && lost < 2 {
				lost++
				return nil, calls.ErrLost
			}
			return answer, err
		})
		d := mustDo(t, follower, put("key", []byte("x")))
		if lost != 2 || !d.Duplicate {
			t.Errorf("%d answers were lost, duplicate %v", lost, d.Duplicate)
		}
		v, err := follower.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if e := v.Get("key"); e == nil || e.Version != 1 {
			t.Errorf("applied as %+v, want once", e)
		}
	})
}

// How a call ends if nobody leads, or no answer comes, until its time is over.
func TestOutcomeWithoutAnswer(t *testing.T) {
	for _, tt := range []struct {
		name     string
		err      error // of each call
		reaches  bool  // the leader, before the answer is lost
		want     error
		excluded error
	}{
		{"not sent", calls.ErrNotSent, false, group.ErrNotApplied, group.ErrUnknownOutcome},
		{"overloaded", calls.ErrOverloaded, false, group.ErrNotApplied, group.ErrUnknownOutcome},
		{"refused: no leader", Absent(), false, ErrNoLeader, group.ErrUnknownOutcome},
		{"lost before", calls.ErrLost, false, group.ErrUnknownOutcome, group.ErrNotApplied},
		{"lost afterwards", calls.ErrLost, true, group.ErrUnknownOutcome, group.ErrNotApplied},
	} {
		t.Run(tt.name, func(t *testing.T) {
			run(t, 3, func(t *testing.T, r *rig) {
				leader := r.leader()
				follower := r.followers(leader)[0]
				r.carry(func(_ *member, _ calls.Kind, at func() ([]byte, error)) ([]byte, error) {
					if tt.reaches {
						_, _ = at() // what matters is that it was there
					}
					return nil, tt.err
				})
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				begin := time.Now()
				_, err := follower.Do(ctx, put("key", nil), machine.Request{})
				if !errors.Is(err, tt.want) || errors.Is(err, tt.excluded) {
					t.Errorf("%v, want %v and not %v", err, tt.want, tt.excluded)
				}
				if took := time.Since(begin); took > time.Second {
					t.Errorf("it took %v", took)
				}
				r.carry(nil)
				if got := leader.View().Status().Applied > 0; got != tt.reaches {
					t.Errorf("applied: %v", got)
				}
			})
		})
	}
}

// A member that does not lead says who does, and that one is asked next.
func TestHint(t *testing.T) {
	run(t, 3, func(t *testing.T, r *rig) {
		leader := r.leader()
		asker, other := r.followers(leader)[0], r.followers(leader)[1]
		var asked []string
		first := true
		r.carry(func(to *member, kind calls.Kind, at func() ([]byte, error)) ([]byte, error) {
			asked = append(asked, to.node)
			if first { // as if it had just handed over to the other, which knows better
				first = false
				return nil, refusal(&group.NotLeaderError{Leader: group.Server{ID: other.addr, Addr: other.addr}})
			}
			return at()
		})
		mustDo(t, asker, put("key", nil))
		if want := []string{leader.node, other.node, leader.node}; !slices.Equal(asked, want) {
			t.Errorf("asked %v, want %v", asked, want)
		}
	})
}

// What is no call is refused, and leaves no trace in the log: every replica would stop at it.
func TestMalformedCalls(t *testing.T) {
	run(t, 1, func(t *testing.T, r *rig) {
		m := r.members[0]
		for _, tt := range []struct {
			kind calls.Kind
			body string
		}{
			{CallPropose, ""}, {CallPropose, "no command"}, {CallReadIndex, "1234567"}, {CallKeepAlive, "1234567"}, {CallKeepAlive, "123456789"}, {99, ""},
		} {
			var ref *calls.Refusal
			if _, err := m.Serve(t.Context(), tt.kind, []byte(tt.body)); !errors.As(err, &ref) {
				t.Errorf("call %d %q: %v, want a refusal", tt.kind, tt.body, err)
			}
		}
		if n := len(m.log.entries()); n != 0 {
			t.Errorf("%d entries in the log", n)
		}
	})
}
