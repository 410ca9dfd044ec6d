package mesh

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/meshkv/meshkv/crdt"
)

const (
	dialBackoff  = 100 * time.Millisecond // the first retry towards a live member; doubles up to Redial
	higherDials  = time.Second            // the higher name waits this long for the lower one's dial
	suspectAfter = time.Second            // without a link to a member that SWIM calls alive
	joinPace     = time.Second            // doubles up to maxJoinPace
	maxJoinPace  = 8 * time.Second        // until membership knows a process that has a link
	maxDoubtPace = time.Minute            // until membership agrees that a member with a link is alive
	steady       = time.Minute            // an alive member is no longer thought to flap
	crossing     = 2 * time.Second        // two links made within this are each other's crossing dial
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
	order   []*record           // all records by name
	links   int                 // records that have one
	alive   int                 // members that membership calls alive, as of the last tick
	failed  int                 // and failed
	want    map[string]struct{} // to whom links are wanted; nil: to everybody
	limit   int                 // of links
	healAt  time.Time           // see mayHeal
	former  []former            // who was reaped while failed, or is known from an earlier process; at most maxFormer
	seeds   []*seed
	changed []string // names whose view is to be shown, each once
	left    bool     // this node left: dial nobody
}

// record is one peer. member.Status is StatusUnknown while serf does not know it.
type record struct {
	member Member
	link   *linkState
	bye    uint64 // the incarnation that said over its link that it leaves

	gone    bool // an operator removed the process removed; that counts once it has failed
	removed uint64

	linkless time.Time // since when an alive member has been without the link that is wanted; zero: it has one
	suspect  bool
	full     bool // the peer refused the last dial because it has as many links as it allows

	dialing  bool
	nextDial time.Time
	fails    int
	nextJoin time.Time
	joins    int  // in a row without success
	joinOnce bool // a stock member came back: it may have learned that it is alive, and of nobody else

	aliveFrom time.Time // of membership's verdict

	told uint64 // the incarnation of the future that membership tells; member.Inc is 0 meanwhile

	claim      claim // a newer process of the name, elsewhere
	claimTries int
	claimNext  time.Time

	shown   Member
	pending bool // in changed
}

type linkState struct {
	peer   hello
	dialed bool // by this node
	since  time.Time

	wanted  bool      // by the peer, as far as it said
	surplus time.Time // since when neither side has wanted it; zero if one does
	live    bool      // the process is there, whatever membership says; see heard
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
	actDial    actionKind = iota + 1 // open a link to name at addr; report by dialed
	actProbe                         // see whether a stock member answers at addr, then join; report by dialed
	actSeed                          // resolve and dial the seed addr; report by seedDialed
	actFormer                        // dial a forgotten member; report by formerDialed
	actJoin                          // push/pull with addr
	actDrop                          // close the link to name: a newer process of that name exists
	actSurplus                       // close the link to name: neither side wants it
)

type action struct {
	kind actionKind
	name string
	addr string
}

func newRoster(self hello, seeds []string, t Timings, r *rand.Rand) *roster {
	ro := &roster{self: self, timing: t, rand: r, records: make(map[string]*record), limit: defaultMaxLinks}
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
		at, _ := r.find(name)
		r.order = slices.Insert(r.order, at, rec)
	}
	return rec
}

func (r *roster) find(name string) (int, bool) {
	return slices.BinarySearchFunc(r.order, name, func(rec *record, name string) int { return cmp.Compare(rec.member.Name, name) })
}

func (r *roster) delete(rec *record) {
	delete(r.records, rec.member.Name)
	if at, ok := r.find(rec.member.Name); ok {
		r.order = slices.Delete(r.order, at, at+1)
	}
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
	rec.told = 0
	if future(now, m.Inc) { // it would supersede every process of that name for years
		rec.told, m.Inc = m.Inc, 0
	}
	rec.member = m
	if m.Status != StatusAlive || m.Inc != before.Inc || before.Status != StatusAlive {
		rec.fails, rec.suspect = 0, false
		rec.linkless, rec.full = time.Time{}, false
		if m.Status == StatusAlive && rec.link == nil && r.wants(m.Name) {
			rec.linkless = now
			rec.nextDial = r.firstDial(now, m.Name)
		}
		rec.joinOnce = m.Status == StatusAlive && m.Inc == 0 && before.Status == StatusFailed
		switch m.Status {
		case StatusFailed:
			rec.nextDial = r.firstHeal(now)
			if now.Sub(rec.aliveFrom) > steady {
				rec.joins = 0
			}
			if l := rec.link; l != nil && l.peer.inc > m.Inc { // its former self is out of the way
				rec.joins, rec.nextJoin = 0, now
			}
		case StatusAlive:
			if before.Status != StatusAlive {
				rec.aliveFrom = now
				rec.gone = rec.gone && before.Status != StatusFailed // what was removed has come back
			}
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
	switch {
	case rec.left() && m.Inc == rec.member.Inc:
		m.Status = StatusLeft
	case m.Status == StatusAlive && rec.suspect, m.Status == StatusFailed && rec.doubted():
		m.Status = StatusSuspect
	}
	return m
}

// left: the process that membership knows said that it leaves, whatever membership says, or it failed and was
// removed.
func (rec *record) left() bool {
	switch rec.member.Status {
	case StatusUnknown, StatusReaped:
		return false
	case StatusFailed:
		if rec.gone && rec.removed == rec.member.Inc && !rec.doubted() {
			return true
		}
	}
	return rec.bye != 0 && rec.bye == rec.member.Inc
}

// doubted: membership may say that the process failed, but it speaks to us over its link. Who is out of reach of
// UDP or of most others, though not of us, is neither given up nor alive: it is suspect.
func (rec *record) doubted() bool { return rec.link != nil && rec.link.live }

// heard says when the last byte came over the link of a member that membership calls failed. A link on which
// nothing came for three pings is no evidence; it ends itself after LinkSilence. With the default timings a member of whom nobody hears any more
// is silent for longer than that when it is found to have failed.
func (r *roster) heard(now time.Time, name string, at time.Time) {
	rec := r.records[name]
	if rec == nil || rec.link == nil || !rec.link.live || now.Sub(at) <= 3*r.timing.LinkPing {
		return
	}
	rec.link.live = false
	r.show(rec)
}

// doubts are the peers of whom heard is to be told.
func (r *roster) doubts() (names []string) {
	for _, rec := range r.order {
		if rec.member.Status == StatusFailed && rec.doubted() {
			names = append(names, rec.member.Name)
		}
	}
	return names
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
	r.delete(rec)
}

// members are all that were not reaped, by name.
func (r *roster) members() []Member {
	var ms []Member
	for _, rec := range r.order {
		if v := r.view(rec); v.Status != StatusUnknown && v.Status != StatusReaped {
			ms = append(ms, v)
		}
	}
	return ms
}

// admit decides about a connection of any kind on which peer said its hello.
func (r *roster) admit(now time.Time, peer hello) refusal {
	switch {
	case peer.cluster != r.self.cluster:
		return refusedCluster
	case peer.name == r.self.name && peer.inc == r.self.inc:
		return refusedSelf
	case peer.name == r.self.name:
		return refusedName
	case r.left:
		return refusedClosing
	case future(now, peer.inc):
		return refusedFuture
	}
	if rec := r.records[peer.name]; rec != nil && rec.link != nil && peer.inc < rec.link.peer.inc {
		return refusedSuperseded
	}
	return accepted
}

// future says whether an incarnation is born too far ahead of our clock to be believed.
func future(now time.Time, inc uint64) bool {
	return crdt.Inc(inc).BirthMs() > now.Add(maxAhead).UnixMilli()
}

// offer decides about a connection that is to be a link. accepted means that it becomes the
// link and replaces the one that there is.
func (r *roster) offer(now time.Time, peer hello, dialed bool) refusal {
	if v := r.admit(now, peer); v != accepted {
		return v
	}
	rec := r.records[peer.name]
	if rec == nil && len(r.records) >= maxUnknown && r.unknown() >= maxUnknown {
		return refusedClosing
	}
	if rec == nil || rec.link == nil {
		if r.links >= r.limit && r.spare(now) == "" {
			return refusedFull
		}
		return accepted
	}
	have := rec.link
	if peer.inc > have.peer.inc {
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
	if rec.link == nil {
		r.links++
	}
	rec.link = &linkState{peer: peer, dialed: dialed, since: now, wanted: true, live: true}
	rec.linkless = time.Time{}
	rec.suspect, rec.full, rec.fails = false, false, 0
	if rec.member.Status != StatusFailed || rec.joins == 0 { // a link that breaks again and again joins no faster
		rec.nextJoin, rec.joins = now, 0
	}
	r.show(rec)
}

// linkDown records that the current link to name ended.
func (r *roster) linkDown(now time.Time, name string) {
	rec := r.records[name]
	if rec == nil || rec.link == nil {
		return
	}
	rec.link = nil
	r.links--
	if rec.member.Status == StatusUnknown {
		r.delete(rec)
		return
	}
	rec.linkless = time.Time{}
	switch {
	case rec.member.Status == StatusFailed:
		rec.nextDial = r.firstHeal(now)
	case r.wants(name):
		rec.linkless = now
		rec.nextDial = r.firstDial(now, name)
	}
	r.show(rec)
}
