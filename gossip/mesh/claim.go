package mesh

import "time"

// claimTries bounds the dials that one claim causes.
const claimTries = 3

// claimed takes note that a newer process of a member is said to be at another address. memberlist ignores such news for as long
// as the old process is not known to be dead, and forgets it: when many restart elsewhere at once, two that did not know
// each other's death yet would learn of each other with the next push/pull only. So the process itself is asked. It reports
// whether the claim is of use.
func (r *roster) claimed(now time.Time, name string, c claim) bool {
	rec := r.records[name]
	if rec == nil || c.inc <= rec.member.Inc || c.inc <= rec.claim.inc || future(now, c.inc) || c.addr == r.self.addr {
		return false
	}
	if rec.link != nil && rec.link.peer.inc >= c.inc {
		return false
	}
	rec.claim, rec.claimTries, rec.claimNext = c, claimTries, now
	if r.alive > healers { // all of them hear it at once; most will know it by then
		rec.claimNext = r.firstHeal(now)
	}
	return true
}

// tickClaim gives the dial of a claim that is due.
func (r *roster) tickClaim(now time.Time, rec *record) (action, bool) {
	switch {
	case rec.claimTries == 0 || rec.dialing || now.Before(rec.claimNext):
		return action{}, false
	case rec.member.Inc >= rec.claim.inc:
		rec.claimTries = 0
		return action{}, false
	}
	rec.claimTries--
	rec.claimNext = now.Add(r.timing.Redial)
	rec.dialing = true
	return action{kind: actDial, name: rec.member.Name, addr: rec.claim.addr}, true
}
