package mesh

import (
	"cmp"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"time"

	"github.com/meshkv/meshkv/crdt"
)

const (
	dialBackoff  = 100 * time.Millisecond // the first retry towards a live member; doubles up to Redial
	higherDials  = time.Second            // the higher name waits this long for the lower one's dial
	suspectAfter = time.Second            // without a link to a member that SWIM calls alive
	joinPace     = time.Second
	crossing     = 2 * time.Second // two links made within this are each other's crossing dial
	formerPace   = 15 * time.Second
	maxFormer    = 64
	maxUnknown   = 256 // records of peers that have a link or had a claim, but no membership yet
	maxResolved  = 8

	// maxAhead is by how much a peer may be born ahead of the local clock. A greater incarnation
	// supersedes a lesser one, so one of the far future, forged or of a wrong clock, would keep the
	// processes of its name out until then.
	maxAhead = 10 * time.Minute
)

// roster is what a node knows of the others, and decides whom to dial and to join, and which of
// two links stays. It reads no clock, opens no socket and starts no goroutine. Not safe for
// concurrent use.
type roster struct {
	self    hello
	timing  Timings
	rand    *rand.Rand
	records map[string]*record
	former  []former // who was reaped while failed, or is known from an earlier process; at most maxFormer
	seeds   []*seed
	changed []string // names whose view is to be shown, each once
	left    bool     // this node left: dial nobody
}

// record is one peer. member.Status is StatusUnknown while serf does not know it.
type record struct {
	member Member
	link   *linkState
	bye    uint64 // the incarnation that said over its link that it leaves

	linkless time.Time // since when an alive member has been without link; zero: it has one
	suspect  bool

	dialing  bool
	nextDial time.Time
	fails    int
	nextJoin time.Time
	joinOnce bool // a stock member came back: it may have learned that it is alive, and of nobody else

	shown   Member
	pending bool // in changed
}

type linkState struct {
	peer   hello
	dialed bool // by this node
	since  time.Time
}

type seed struct {
	addr     string // as configured
	resolved []string
	name     string // of who answered last
	dialing  bool
	next     time.Time
}

type former struct {
	name, addr string
	dialing    bool
	fails      int
	next       time.Time
}

type actionKind uint8

const (
	actDial   actionKind = iota + 1 // open a link to name at addr; report by dialed
	actProbe                        // see whether a stock member answers at addr, then join; report by dialed
	actSeed                         // resolve and dial the seed addr; report by seedDialed
	actFormer                       // dial a forgotten member; report by formerDialed
	actJoin                         // push/pull with addr
	actDrop                         // close the link to name: a newer process of that name exists
)

type action struct {
	kind actionKind
	name string
	addr string
}

func newRoster(self hello, seeds []string, t Timings, r *rand.Rand) *roster {
	ro := &roster{self: self, timing: t, rand: r, records: make(map[string]*record)}
	for _, a := range seeds {
		ro.seeds = append(ro.seeds, &seed{addr: a})
	}
	return ro
}

func (r *roster) record(name string) *record {
	rec := r.records[name]
	if rec == nil {
		rec = &record{}
		rec.member.Name = name
		r.records[name] = rec
	}
	return rec
}

// jitter is between 3/4 of d and d.
func (r *roster) jitter(d time.Duration) time.Duration {
	return d - time.Duration(r.rand.Int64N(int64(d/4)+1))
}

// membership takes what serf says of a member.
func (r *roster) membership(now time.Time, m Member) {
	if m.Name == r.self.name {
		return
	}
	if m.Status == StatusReaped {
		r.reaped(now, m)
		return
	}
	rec := r.record(m.Name)
	before := rec.member
	rec.member = m
	if m.Status != StatusAlive || m.Inc != before.Inc || before.Status != StatusAlive {
		rec.fails, rec.suspect = 0, false
		rec.linkless = time.Time{}
		if m.Status == StatusAlive && rec.link == nil {
			rec.linkless = now
			rec.nextDial = r.firstDial(now, m.Name)
		}
		rec.joinOnce = m.Status == StatusAlive && m.Inc == 0 && before.Status == StatusFailed
		if m.Status == StatusFailed {
			rec.nextDial = now.Add(r.jitter(r.timing.Redial / 2))
		}
	}
	r.former = slices.DeleteFunc(r.former, func(f former) bool { return f.name == m.Name })
	r.show(rec)
}

func (r *roster) firstDial(now time.Time, name string) time.Time {
	if r.self.name < name {
		return now
	}
	return now.Add(r.jitter(higherDials))
}

func (r *roster) reaped(now time.Time, m Member) {
	rec := r.records[m.Name]
	if rec == nil {
		return
	}
	if rec.member.Status == StatusFailed && rec.member.Inc != 0 && !rec.left() {
		if len(r.former) == maxFormer {
			r.former = slices.Delete(r.former, 0, 1)
		}
		r.former = append(r.former, former{name: m.Name, addr: rec.member.Addr, fails: 10, next: now.Add(r.jitter(formerPace))})
	}
	rec.member.Status = StatusReaped
	r.show(rec)
}

// view is the member as it is shown. A link to a newer process of a known name shows that process
// at once: membership follows when it has found the old one to be dead.
func (r *roster) view(rec *record) Member {
	m := rec.member
	if l := rec.link; l != nil && m.Status != StatusUnknown && m.Status != StatusReaped && l.peer.inc > m.Inc {
		m.Inc, m.Addr, m.Status = l.peer.inc, l.peer.addr, StatusAlive
	}
	if rec.left() && m.Inc == rec.bye {
		m.Status = StatusLeft
	}
	if m.Status == StatusAlive && rec.suspect {
		m.Status = StatusSuspect
	}
	return m
}

// left: the process that membership knows said that it leaves, whatever membership says.
func (rec *record) left() bool {
	return rec.bye != 0 && rec.bye == rec.member.Inc && rec.member.Status != StatusUnknown && rec.member.Status != StatusReaped
}

// farewell records that the process inc of name said that it leaves.
func (r *roster) farewell(name string, inc uint64) {
	if rec := r.records[name]; rec != nil && inc > rec.bye {
		rec.bye = inc
		r.show(rec)
	}
}

// show puts the member in line for an event if its view changed.
func (r *roster) show(rec *record) {
	v := r.view(rec)
	if v.Status == StatusUnknown || rec.pending || v.equal(rec.shown) {
		return
	}
	rec.pending = true
	r.changed = append(r.changed, rec.member.Name)
}

// takeEvent gives the newest view of the member that changed longest ago.
func (r *roster) takeEvent() (MemberEvent, bool) {
	for len(r.changed) > 0 {
		name := r.changed[0]
		r.changed = slices.Delete(r.changed, 0, 1)
		rec := r.records[name]
		if rec == nil || !rec.pending {
			continue
		}
		rec.pending = false
		v := r.view(rec)
		if v.equal(rec.shown) {
			continue // it changed back
		}
		rec.shown = v
		if v.Status == StatusReaped {
			r.forget(rec)
		}
		return MemberEvent{Member: v}, true
	}
	return MemberEvent{}, false
}

func (r *roster) forget(rec *record) {
	if rec.link != nil { // it will be joined again
		rec.member.Status = StatusUnknown
		rec.shown = Member{}
		return
	}
	delete(r.records, rec.member.Name)
}

// members are all that were not reaped, by name.
func (r *roster) members() []Member {
	var ms []Member
	for _, rec := range r.records {
		if v := r.view(rec); v.Status != StatusUnknown && v.Status != StatusReaped {
			ms = append(ms, v)
		}
	}
	slices.SortFunc(ms, func(a, b Member) int { return cmp.Compare(a.Name, b.Name) })
	return ms
}

// offer decides about a connection on which peer said its hello. accepted means that it
// becomes the link and replaces the one that there is.
func (r *roster) offer(now time.Time, peer hello, dialed bool) refusal {
	switch {
	case peer.cluster != r.self.cluster:
		return refusedCluster
	case peer.name == r.self.name && peer.inc == r.self.inc:
		return refusedSelf
	case peer.name == r.self.name:
		return refusedName
	case r.left:
		return refusedClosing
	case crdt.Inc(peer.inc).BirthMs() > now.Add(maxAhead).UnixMilli():
		return refusedFuture
	}
	rec := r.records[peer.name]
	if rec == nil && len(r.records) >= maxUnknown && r.unknown() >= maxUnknown {
		return refusedClosing
	}
	if rec == nil || rec.link == nil {
		return accepted
	}
	have := rec.link
	switch {
	case peer.inc < have.peer.inc:
		return refusedSuperseded
	case peer.inc > have.peer.inc:
		return accepted
	}
	// The lower name's dial wins. A dial of the other side that comes long after the link was made
	// is not its crossing: then the other side has lost the link and this one has not noticed.
	lower := r.self.name < peer.name
	if have.dialed == lower && dialed != lower && now.Sub(have.since) < crossing {
		return refusedDuplicate
	}
	return accepted
}

func (r *roster) unknown() (n int) {
	for _, rec := range r.records {
		if rec.member.Status == StatusUnknown {
			n++
		}
	}
	return n
}

// linkUp records a link that offer accepted.
func (r *roster) linkUp(now time.Time, peer hello, dialed bool) {
	rec := r.record(peer.name)
	rec.link = &linkState{peer: peer, dialed: dialed, since: now}
	rec.linkless = time.Time{}
	rec.suspect, rec.fails, rec.nextJoin = false, 0, now
	r.show(rec)
}

// linkDown records that the current link to name ended.
func (r *roster) linkDown(now time.Time, name string) {
	rec := r.records[name]
	if rec == nil || rec.link == nil {
		return
	}
	rec.link = nil
	if rec.member.Status == StatusUnknown {
		delete(r.records, name)
		return
	}
	rec.linkless = now
	rec.nextDial = r.firstDial(now, name)
	r.show(rec)
}

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
	pause := r.timing.Redial
	if rec.member.Status == StatusAlive {
		pause = min(pause, dialBackoff<<min(rec.fails, 10))
	}
	rec.fails++
	rec.nextDial = start.Add(r.jitter(pause))
}

// seedDialed ends an actSeed; name is who answered, "" if nobody said.
func (r *roster) seedDialed(start time.Time, addr string, resolved []string, name string) {
	for _, s := range r.seeds {
		if s.addr == addr {
			s.dialing = false
			s.next = start.Add(r.jitter(r.timing.Redial))
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
		f.next = start.Add(r.jitter(min(formerPace, r.timing.Redial<<min(f.fails, 10))))
		f.fails++
		return
	}
}

// satisfied says whether the seed is a member that is alive, or this node.
func (r *roster) satisfied(s *seed) bool {
	if s.name == r.self.name {
		return true
	}
	if rec := r.records[s.name]; rec != nil && rec.link != nil && rec.member.Status == StatusAlive {
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
		for _, rec := range r.records {
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
	dials := 0
	for _, name := range slices.Sorted(maps.Keys(r.records)) {
		rec := r.records[name]
		if l := rec.link; l != nil {
			switch {
			case l.peer.inc < rec.member.Inc:
				acts = append(acts, action{kind: actDrop, name: name})
			case (!rec.left() || l.peer.inc > rec.bye) && r.wantsJoin(rec) && !now.Before(rec.nextJoin):
				rec.nextJoin = now.Add(r.jitter(joinPace))
				acts = append(acts, action{kind: actJoin, name: name, addr: l.peer.addr})
			}
			continue
		}
		if rec.left() {
			continue
		}
		m := rec.member
		if rec.joinOnce {
			rec.joinOnce = false
			acts = append(acts, action{kind: actJoin, name: name, addr: m.Addr})
		}
		if m.Status == StatusAlive && m.Inc != 0 && !rec.suspect && !rec.linkless.IsZero() && now.Sub(rec.linkless) >= suspectAfter {
			rec.suspect = true
			r.show(rec)
		}
		kind := actDial
		switch {
		case m.Status == StatusFailed && m.Inc == 0:
			kind = actProbe
		case m.Inc == 0 || m.Status != StatusAlive && m.Status != StatusFailed:
			continue
		}
		if !rec.dialing && !now.Before(rec.nextDial) && dials < budget {
			dials++
			rec.dialing = true
			acts = append(acts, action{kind: kind, name: name, addr: m.Addr})
		}
	}
	for i := range r.former {
		if f := &r.former[i]; !f.dialing && !now.Before(f.next) && dials < budget {
			dials++
			f.dialing = true
			acts = append(acts, action{kind: actFormer, name: f.name, addr: f.addr})
		}
	}
	return acts
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
