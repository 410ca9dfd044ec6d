package keyspace

import (
	"cmp"
	"time"

	"github.com/meshkv/meshkv/crdt"
)

const (
	// surveySettles is for how long a survey must have stayed the same before it is
	// published: an op that was on its way when its incarnation was closed has
	// arrived by then, or is lost, and what was received is on disk.
	surveySettles = time.Minute
	// retireAfter is the age at which incarnations are retired. A member that was
	// away for less loses nothing, whatever it has.
	retireAfter = 30 * 24 * time.Hour
)

// A Published survey is what one member says of its replica, and under which
// incarnation.
type Published struct {
	Inc    crdt.Inc
	Survey crdt.Survey
}

// A SealView is what a node knows of one keyspace when it looks at its seals.
type SealView struct {
	Own     crdt.Survey
	OwnOK   bool // Own may be counted on: see Keyspace.Survey
	OwnInc  crdt.Inc
	Decides bool // this is the member that decides
	// Members are all others that the membership lists as holders of the keyspace,
	// failed ones included, with the incarnation that it lists: all that have
	// neither left nor been reaped. One whose Inc is not known is listed with 0.
	Members map[string]crdt.Inc
	// Closed are the incarnations among those of Members that are closed.
	Closed map[crdt.Inc]bool
	// Surveys are the published ones by member, and Agreed the newest agreement.
	Surveys map[string]Published
	Agreed  crdt.Agreement
}

// A SealStep is what is to be done about the seals of a keyspace.
type SealStep struct {
	Publish  bool // Survey, in place of what this node has published
	Survey   crdt.Survey
	Withdraw bool // what this node has published, at once
	Record   bool // Agreed, as the newest agreement
	Agreed   crdt.Agreement
	Apply    bool // the newest agreement, to this node's replica
}

// Seals decides when the members of one keyspace agree on what closed
// incarnations wrote (design §3 "Seal and retirement", ADR 0005). It performs no
// I/O and reads no clock. Not safe for concurrent use.
type Seals struct {
	// SettleAfter is for how long a survey must have stayed the same before it is
	// published, and RetireAfter the age at which incarnations are retired, if not
	// 0: for tests.
	SettleAfter, RetireAfter time.Duration

	seen seen
}

// seen is what was seen of one keyspace.
type seen struct {
	last      crdt.Survey // that was seen last
	lastInc   crdt.Inc
	since     time.Time // since when it is the same; zero: never seen
	published bool
	applied   crdt.Agreement // tried on the survey that was seen last
}

// Step looks at the keyspace at time now. It is to be called every few seconds.
func (s *Seals) Step(now time.Time, v SealView) (out SealStep) {
	return s.seen.step(now, v, cmp.Or(s.SettleAfter, surveySettles), cmp.Or(s.RetireAfter, retireAfter))
}

func (s *seen) step(now time.Time, v SealView, settle, retire time.Duration) (out SealStep) {
	if !v.OwnOK {
		out.Withdraw = s.published
		*s = seen{}
		return out
	}
	if s.since.IsZero() || v.Own != s.last || v.OwnInc != s.lastInc {
		// What was published is no longer true, and must not count for a moment
		// longer than its removal takes to spread.
		out.Withdraw = s.published
		*s = seen{last: v.Own, lastInc: v.OwnInc, since: now}
		return out
	}
	if now.Sub(s.since) < settle {
		return out
	}
	if !s.published {
		s.published = true
		out.Publish, out.Survey = true, v.Own
		return out
	}
	if v.Agreed != (crdt.Agreement{}) && v.Agreed.Digest == v.Own.Digest && v.Agreed != s.applied {
		s.applied = v.Agreed
		out.Apply = true
	}
	// No agreement about nothing: a horizon that nobody needs would only stand in
	// the way of a cluster that has older values and is joined later.
	if v.Decides && v.Own.Digest != 0 {
		if a, ok := v.decide(now, retire); ok && (a.Digest != v.Agreed.Digest || a.Horizon > v.Agreed.Horizon+horizonStep(retire)) {
			out.Record, out.Agreed = true, a
		}
	}
	return out
}

// horizonStep is by how much the horizon must rise to be worth an agreement of
// its own: a day, where incarnations are retired after 30.
func horizonStep(retire time.Duration) crdt.Inc {
	return crdt.NewInc((retire / 30).Milliseconds(), 0)
}

// decide is the agreement that the published surveys allow. All members count,
// each under the incarnation that the membership lists: one that was superseded
// or closed elsewhere is waited for until it has published under its next one,
// or has been reaped here, too.
func (v *SealView) decide(now time.Time, retire time.Duration) (crdt.Agreement, bool) {
	limit := min(v.OwnInc, crdt.NewInc(max(now.Add(-retire).UnixMilli(), 0), 0))
	others := make([]crdt.Survey, 0, len(v.Members))
	for name, inc := range v.Members {
		p, ok := v.Surveys[name]
		if !ok || inc == 0 || p.Inc != inc || v.Closed[inc] {
			return crdt.Agreement{}, false
		}
		limit = min(limit, inc)
		others = append(others, p.Survey)
	}
	return crdt.Decide(v.Own, others, limit)
}
