package machine

import (
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// A queue is the dumb model of all locks: every claim there is, in the order in which
// they came, and nothing that sums them up.
type queue struct {
	claims   []queuedClaim
	sessions map[LeaseID]bool
	token    Token
}

type queuedClaim struct {
	name    string
	id      ClaimID
	mode    Mode
	places  uint64
	delay   uint64
	token   Token
	delayed bool
	value   string
}

// grant grants every claim of a name that may be: none may have come before that waits,
// and those that hold must go along with it.
func (q *queue) grant(name string) (events []LockEvent) {
	for i := range q.claims {
		c := &q.claims[i]
		if c.name != name || c.token != 0 {
			continue
		}
		holders, writers := uint64(0), 0
		for _, o := range q.claims {
			if o.name == name && o.token != 0 {
				holders++
				if o.mode == Exclusive {
					writers++
				}
			}
		}
		free := c.mode == Exclusive && holders == 0 || c.mode == Shared && writers == 0 || c.mode == Place && holders < c.places
		if !free {
			return events
		}
		q.token++
		c.token = q.token
		events = append(events, LockEvent{Kind: Granted, Name: name, Claim: c.id, Token: c.token, Value: []byte(c.value)})
	}
	return events
}

func (q *queue) find(match func(c queuedClaim) bool) int { return slices.IndexFunc(q.claims, match) }

func (q *queue) acquire(a *Acquire) (Token, []LockEvent, error) {
	if !q.sessions[a.Claim.Session] {
		return 0, nil, ErrLeaseNotFound
	}
	if i := q.find(func(c queuedClaim) bool { return c.name == a.Name && c.id == a.Claim && !c.delayed }); i >= 0 {
		if c := q.claims[i]; c.mode != a.Mode || c.places != a.Places {
			return 0, nil, ErrLockKind
		}
		return q.claims[i].token, nil, nil
	}
	if q.find(func(c queuedClaim) bool { return c.name == a.Name && c.places != a.Places }) >= 0 {
		return 0, nil, ErrLockKind
	}
	saved := slices.Clone(q.claims)
	q.claims = append(q.claims, queuedClaim{name: a.Name, id: a.Claim, mode: a.Mode, places: a.Places, delay: a.Delay, value: string(a.Value)})
	events := q.grant(a.Name)
	token := q.claims[len(q.claims)-1].token
	if a.Try && token == 0 {
		q.claims = saved
		return 0, nil, ErrLocked
	}
	return token, events, nil
}

// remove takes the i-th claim out, and lets nobody in.
func (q *queue) remove(i int, kind LockEventKind) LockEvent {
	c := q.claims[i]
	if c.token == 0 {
		kind = Failed
	}
	q.claims = slices.Delete(q.claims, i, i+1)
	return LockEvent{Kind: kind, Name: c.name, Claim: c.id, Token: c.token}
}

// end ends a session. The order of its events is that of names and requests.
func (q *queue) end(id LeaseID, expired bool) (events []LockEvent) {
	if !q.sessions[id] {
		return nil
	}
	delete(q.sessions, id)
	var names []string
	for _, waits := range []bool{true, false} {
		for _, name := range lockNames {
			for request := uint64(1); request <= 2; request++ {
				i := q.find(func(c queuedClaim) bool {
					return c.name == name && c.id == ClaimID{id, request} && !c.delayed && (c.token == 0) == waits
				})
				if i < 0 {
					continue
				}
				if c := &q.claims[i]; !waits && expired && c.delay > 0 {
					c.delayed = true
					events = append(events, LockEvent{Kind: Delayed, Name: name, Claim: c.id, Token: c.token, Delay: c.delay})
				} else {
					events = append(events, q.remove(i, Lost))
				}
				names = append(names, name)
			}
		}
	}
	for _, name := range names {
		events = append(events, q.grant(name)...)
	}
	return events
}

var lockNames = []string{"l", "m", "s"}

func TestLocksEqualModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := newRig(t)
		q := &queue{sessions: map[LeaseID]bool{}}
		check := func(res Result, events []LockEvent, err error) {
			t.Helper()
			if res.Err != err {
				t.Fatalf("got error %v, want %v", res.Err, err)
			}
			if !reflect.DeepEqual(res.Locks, events) {
				t.Fatalf("events:\ngot  %+v\nwant %+v", res.Locks, events)
			}
		}
		last := Token(0)
		for range rapid.IntRange(1, 40).Draw(t, "commands") {
			name := pick(t, "name", lockNames...)
			id := ClaimID{LeaseID(rapid.IntRange(1, 3).Draw(t, "session")), uint64(rapid.IntRange(1, 2).Draw(t, "request"))}
			token := Token(rapid.Uint64Range(0, uint64(q.token)+1).Draw(t, "token"))
			byToken := func(c queuedClaim) bool { return c.name == name && c.token == token && token != 0 && !c.delayed }
			switch rapid.IntRange(0, 11).Draw(t, "command") {
			case 0, 1, 2, 3:
				a := &Acquire{Name: name, Claim: id, Mode: pick(t, "mode", Exclusive, Shared), Try: pick(t, "try", false, false, true),
					Delay: pick[uint64](t, "delay", 0, 500), Value: []byte(pick(t, "value", "", "v"))}
				if name == "s" {
					a.Mode, a.Places = Place, pick[uint64](t, "places", 2, 2, 2, 3)
				}
				res := r.apply(a)
				token, events, err := q.acquire(a)
				if check(res, events, err); res.Token != token {
					t.Fatalf("token: got %d, want %d", res.Token, token)
				}
			case 4, 5:
				res := r.apply(&Release{name, token})
				if i := q.find(byToken); i < 0 {
					check(res, nil, ErrNotHeld)
				} else {
					check(res, append([]LockEvent{q.remove(i, Lost)}, q.grant(name)...), nil)
				}
			case 6:
				res := r.apply(&Abort{name, id})
				if i := q.find(func(c queuedClaim) bool { return c.name == name && c.id == id && !c.delayed }); i < 0 {
					check(res, nil, ErrNotHeld)
				} else {
					check(res, append([]LockEvent{q.remove(i, Lost)}, q.grant(name)...), nil)
				}
			case 7:
				res := r.apply(&EndDelay{name, token})
				if i := q.find(func(c queuedClaim) bool { return c.name == name && c.token == token && c.delayed }); i < 0 {
					check(res, nil, ErrNotHeld)
				} else {
					check(res, append([]LockEvent{q.remove(i, DelayEnded)}, q.grant(name)...), nil)
				}
			case 8:
				res := r.apply(&Proclaim{name, token, []byte("p")})
				if i := q.find(byToken); i < 0 {
					check(res, nil, ErrNotHeld)
				} else {
					q.claims[i].value = "p"
					check(res, []LockEvent{{Kind: Proclaimed, Name: name, Claim: q.claims[i].id, Token: token, Value: []byte("p")}}, nil)
				}
			case 9:
				if !q.sessions[id.Session] {
					q.sessions[id.Session] = true
					check(r.apply(&Grant{ID: id.Session, TTL: MinTTL}), nil, nil)
				} else {
					check(r.apply(&Revoke{id.Session}), q.end(id.Session, false), nil)
				}
			case 10:
				res := r.apply(&Expire{[]LeaseID{id.Session}})
				check(res, q.end(id.Session, true), nil)
			case 11:
				r.swap()
			}
			q.checkReads(t, r.m.View())
			for _, ev := range r.m.View().Holders(name) {
				last = max(last, ev.Token)
			}
			if last > r.m.token || r.m.token != q.token {
				t.Fatalf("token %d given after %d, model %d", last, r.m.token, q.token)
			}
		}
		r.same()
	})
}

func (q *queue) checkReads(t *rapid.T, v *View) {
	t.Helper()
	for _, name := range lockNames {
		var holders, waiting []Holder
		highest, any := uint64(0), map[uint64]bool{}
		for _, c := range q.claims {
			h := Holder{Claim: c.id, Token: c.token, Mode: c.mode, Value: []byte(c.value)}
			switch {
			case c.name != name:
			case c.token == 0:
				waiting = append(waiting, h)
			default:
				if c.delayed {
					h.Delay = c.delay
				} else {
					any[uint64(c.token)] = true
					highest = max(highest, uint64(c.token))
				}
				holders = append(holders, h)
			}
		}
		slices.SortFunc(holders, func(a, b Holder) int { return int(a.Token) - int(b.Token) })
		if got := v.Holders(name); !reflect.DeepEqual(got, holders) {
			t.Fatalf("holders of %s:\ngot  %+v\nwant %+v", name, got, holders)
		}
		if got := v.Waiting(name, 100); !reflect.DeepEqual(got, waiting) {
			t.Fatalf("queue of %s:\ngot  %+v\nwant %+v", name, got, waiting)
		}
		if len(any) == 0 {
			any[0] = true
		}
		for n := range uint64(q.token) + 2 {
			for rel, want := range map[Relation]bool{Equal: any[n], NotEqual: !any[n], Less: highest < n, Greater: highest > n} {
				if got := v.s.tokenHolds(&Compare{Span: Span{Key: name}, Target: TargetToken, Relation: rel, Number: n}); got != want {
					t.Fatalf("token of %s, relation %d to %d: got %v", name, rel, n, got)
				}
			}
		}
	}
}
