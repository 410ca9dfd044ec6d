package mesh

import (
	"net"
	"slices"
	"time"
)

// dialed ends an actDial or actProbe that began at start.
func (r *roster) dialed(start time.Time, name string, ok bool) {
	rec := r.records[name]
	if rec == nil {
		return
	}
	rec.dialing = false
	if ok {
		return
	}
	if rec.member.Status == StatusAlive {
		rec.nextDial = start.Add(r.jitter(min(r.timing.Redial, dialBackoff<<min(rec.fails, 10))))
	} else {
		rec.nextDial = start.Add(r.healPause(r.timing.Redial, max(r.alive, r.failed)))
	}
	rec.fails++
}

// dialRefused ends an actDial to a peer that is there and has as many links as it allows.
func (r *roster) dialRefused(start time.Time, name string) {
	rec := r.records[name]
	if rec == nil {
		return
	}
	rec.dialing, rec.full = false, true
	if rec.suspect {
		rec.suspect = false
		r.show(rec)
	}
	rec.nextDial = start.Add(r.jitter(fullPace))
}

// Healing dials go to failed members, to seeds that are no members, and to former ones. In a cluster of n that would
// be n dials of one dead member in every Redial, so beyond healers alive members each waits for longer, and the dead
// member gets the same number of dials as from that many. One answer is enough to merge two memberships.
const healers = 32

// healPause is the time from one healing dial to the next of the same peer, if n share the work or are the work.
func (r *roster) healPause(pace time.Duration, n int) time.Duration {
	if n <= healers {
		return r.jitter(pace)
	}
	d := pace * time.Duration(n) / healers
	return d + time.Duration(r.rand.Int64N(int64(d/4)+1)) // upwards: mayHeal lets no more through
}

// firstHeal is when a member that was just found to have failed is dialed first. Many find that at once.
func (r *roster) firstHeal(now time.Time) time.Time {
	n := max(r.alive, r.failed)
	if n <= healers {
		return now.Add(r.jitter(r.timing.Redial / 2))
	}
	return now.Add(time.Duration(r.rand.Int64N(int64(r.timing.Redial) * int64(n) / healers)))
}

// mayHeal bounds the dials of failed members to healers in any Redial, after half of the cluster has
// failed too. It is a bucket of that size, kept as the time up to which it is used.
func (r *roster) mayHeal(now time.Time) bool {
	if full := now.Add(-r.timing.Redial); r.healAt.Before(full) {
		r.healAt = full
	}
	if r.healAt.After(now) {
		return false
	}
	r.healAt = r.healAt.Add(r.timing.Redial / healers)
	return true
}

// seedDialed ends an actSeed; name is who answered, "" if nobody said.
func (r *roster) seedDialed(start time.Time, addr string, resolved []string, name string) {
	for _, s := range r.seeds {
		if s.addr == addr {
			s.dialing = false
			s.next = start.Add(r.healPause(r.timing.Redial, r.alive))
			s.resolved = resolved[:min(len(resolved), maxResolved)]
			if name != "" {
				s.name = name
			}
		}
	}
}

// remember adds whom an earlier process knew: they are dialed at once, and ever more seldom.
func (r *roster) remember(known []former) {
	for _, f := range known {
		if f.name != r.self.name && f.addr != r.self.addr && r.records[f.name] == nil && len(r.former) < maxFormer {
			r.former = append(r.former, f)
		}
	}
}

// formerDialed ends an actFormer. answered is who was there; if that is another one, the former member
// lives there no more.
func (r *roster) formerDialed(start time.Time, name, answered string) {
	for i := range r.former {
		f := &r.former[i]
		if f.name != name {
			continue
		}
		if answered != "" && answered != name {
			r.former = slices.Delete(r.former, i, i+1)
			return
		}
		f.dialing = false
		f.next = start.Add(r.healPause(min(formerPace, r.timing.Redial<<min(f.fails, 10)), r.alive))
		f.fails++
		return
	}
}

// satisfied says whether the seed is a member that is alive, or this node.
func (r *roster) satisfied(s *seed) bool {
	if s.name == r.self.name {
		return true
	}
	if rec := r.records[s.name]; rec != nil && rec.member.Status == StatusAlive && (rec.link != nil || !r.wants(s.name)) {
		return true
	}
	addrs := s.resolved
	if host, _, _ := net.SplitHostPort(s.addr); net.ParseIP(host) != nil {
		addrs = append(slices.Clip(addrs), s.addr)
	}
	for _, a := range addrs {
		if a == r.self.addr {
			return true
		}
		for _, rec := range r.order {
			if rec.member.Addr == a && rec.member.Status == StatusAlive {
				return true
			}
		}
	}
	return false
}

// tick gives what is to be done now, with at most budget dials of members.
func (r *roster) tick(now time.Time, budget int) []action {
	if r.left {
		return nil
	}
	var acts []action
	for _, s := range r.seeds {
		if !s.dialing && !now.Before(s.next) {
			if r.satisfied(s) {
				s.next = now.Add(r.jitter(r.timing.Redial))
				continue
			}
			s.dialing = true
			acts = append(acts, action{kind: actSeed, addr: s.addr})
		}
	}
	dials, alive, failed := 0, 0, 0
	room := r.links < r.limit
	for _, rec := range r.order {
		if rec.told != 0 && !future(now, rec.told) { // its time has come
			m := rec.member
			m.Inc = rec.told
			r.membership(now, m)
		}
		m := rec.member
		switch m.Status {
		case StatusAlive:
			alive++
		case StatusFailed:
			failed++
		}
		if rec.link != nil {
			acts = r.tickLink(now, rec, acts)
			continue
		}
		if rec.left() {
			continue
		}
		if dials < budget {
			if a, ok := r.tickClaim(now, rec); ok {
				dials++
				acts = append(acts, a)
				continue
			}
		}
		if rec.joinOnce {
			rec.joinOnce = false
			acts = append(acts, action{kind: actJoin, name: m.Name, addr: m.Addr})
		}
		kind := actDial
		switch m.Status {
		case StatusAlive:
			if m.Inc == 0 || !r.tickLinkless(now, rec, room) {
				continue
			}
		case StatusFailed:
			if m.Inc == 0 {
				kind = actProbe
			}
		default:
			continue
		}
		if rec.dialing || now.Before(rec.nextDial) || dials >= budget || m.Status == StatusFailed && !r.mayHeal(now) {
			continue
		}
		dials++
		rec.dialing = true
		acts = append(acts, action{kind: kind, name: m.Name, addr: m.Addr})
	}
	r.alive, r.failed = alive, failed
	for i := range r.former {
		if f := &r.former[i]; !f.dialing && !now.Before(f.next) && dials < budget {
			dials++
			f.dialing = true
			acts = append(acts, action{kind: actFormer, name: f.name, addr: f.addr})
		}
	}
	return acts
}

// tickLink looks after a peer that has a link.
func (r *roster) tickLink(now time.Time, rec *record, acts []action) []action {
	l := rec.link
	since := r.surplus(now, rec)
	switch {
	case l.peer.inc < rec.member.Inc:
		acts = append(acts, action{kind: actDrop, name: rec.member.Name})
	case !since.IsZero() && now.Sub(since) >= r.timing.LinkSurplus:
		acts = append(acts, action{kind: actSurplus, name: rec.member.Name})
	case (!rec.left() || l.peer.inc > rec.bye) && r.wantsJoin(rec) && !now.Before(rec.nextJoin):
		most := maxJoinPace
		if rec.member.Status == StatusFailed && l.peer.inc == rec.member.Inc {
			most = maxDoubtPace // each join makes it alive for all those, too, who will find it failed again
		}
		rec.nextJoin = now.Add(r.jitter(min(most, joinPace<<min(rec.joins, 10))))
		rec.joins++
		acts = append(acts, action{kind: actJoin, name: rec.member.Name, addr: l.peer.addr})
	}
	return acts
}

// tickLinkless looks after an alive member without a link and reports whether it may be dialed.
func (r *roster) tickLinkless(now time.Time, rec *record, room bool) bool {
	if !r.wants(rec.member.Name) || !room {
		rec.linkless = time.Time{}
		if rec.suspect {
			rec.suspect = false
			r.show(rec)
		}
		return false
	}
	if rec.linkless.IsZero() {
		rec.linkless = now
		rec.nextDial = r.firstDial(now, rec.member.Name)
	}
	if !rec.suspect && !rec.full && now.Sub(rec.linkless) >= suspectAfter {
		rec.suspect = true
		r.show(rec)
	}
	return true
}

// wantsJoin: there is a link, so the process is there, but membership does not say so.
func (r *roster) wantsJoin(rec *record) bool {
	switch rec.member.Status {
	case StatusAlive, StatusLeft:
		return rec.link.peer.inc > rec.member.Inc
	default:
		return true
	}
}
