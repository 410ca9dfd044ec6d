package gossip

import (
	"cmp"
	"slices"
	"time"

	"github.com/meshkv/meshkv/crdt"
)

// Acknowledgements tell an origin which members have its ops. They are asked for
// with a number: whoever has all dots of the origin up to some seq, without a gap,
// says so, and one answer stands for any number of ops. Answers are rows, one of a
// member, of numbers that only rise. So they may be repeated, overtaken and merged,
// and ways may change: the maximum is always right.
//
// An ask goes where the ops of its origin go. Rows go back over the link by which
// the newest ask came first, from member to member, each of which keeps what it was
// told. Where that link is lost, all rows go over the next one by which an ask
// comes. An origin that waits asks again, and then on all links and not only along
// its tree, so that no loss, no ring of lost links and no forgotten row outlasts
// the next try.
const (
	// maxAckOrigins bounds the origins of others whose asks are remembered. One
	// that was forgotten, least recently asked first, is met again at its next ask.
	maxAckOrigins = 256
	// maxAckRows bounds the members that are remembered of one origin.
	maxAckRows = 4096
	// maxRowsInMessage bounds the rows in one message; what is over has another.
	maxRowsInMessage = 512
	// askAgainFirst is after how long without progress an origin asks again, which
	// doubles up to askAgainMost.
	askAgainFirst = int64(100 * time.Millisecond)
	askAgainMost  = int64(time.Second)
	// askedFor is how long an ask is remembered.
	askedFor = int64(time.Minute)
)

// An ask is what an origin wants to be acknowledged.
type ask struct {
	origin  crdt.Inc
	round   uint64 // rises with each ask, over restarts of the keyspace, too
	applied uint64 // acknowledge that the dots up to this one are applied, 0: none
	synced  uint64 // and that they are on disk
	wide    bool   // it goes over all links, and all rows are told again
}

// An Ack says how far a member has the ops of one origin, without a gap.
type Ack struct {
	Member  crdt.Inc
	Applied uint64
	Synced  uint64 // on the disk of the member; at most Applied
}

// raise takes over what other says of the same member.
func (a *Ack) raise(other Ack) (changed bool) {
	if other.Applied <= a.Applied && other.Synced <= a.Synced {
		return false
	}
	a.Applied, a.Synced = max(a.Applied, other.Applied, other.Synced), max(a.Synced, other.Synced)
	return true
}

// ackRow is one row, and whether it is to be told on.
type ackRow struct {
	Ack
	fresh bool
}

// asked is what is remembered of the asks of one origin.
type asked struct {
	ask
	own     bool  // an incarnation of this replica
	parent  *link // by which the newest round came first; nil: own, or it is down
	rows    []ackRow
	askedAt int64
	syncing uint64 // the dots up to this one were given to the owner, see TakeUnsynced

	// Of own ones.
	news    bool   // rows changed since TakeAcks
	awaited uint64 // the lowest seq that somebody waits for, 0: none
	againAt int64  // when it is asked for again
	pause   int64  // after that
}

// row is the row of member, made now if there is none; nil where there is no room.
func (a *asked) row(member crdt.Inc) *ackRow {
	i, found := slices.BinarySearchFunc(a.rows, member, func(row ackRow, inc crdt.Inc) int { return cmp.Compare(row.Member, inc) })
	if !found {
		if len(a.rows) >= maxAckRows {
			return nil
		}
		a.rows = slices.Insert(a.rows, i, ackRow{Ack: Ack{Member: member}})
	}
	return &a.rows[i]
}

// takeFresh takes up to limit rows that are to be told, and reports whether there
// are more.
func (a *asked) takeFresh(limit int) (rows []Ack, more bool) {
	for i := range a.rows {
		switch row := &a.rows[i]; {
		case !row.fresh:
		case len(rows) == limit:
			return rows, true
		default:
			row.fresh = false
			rows = append(rows, row.Ack)
		}
	}
	return rows, false
}

// acks is what is remembered of all asks.
type acks struct {
	order    []*asked // ascending by origin
	unsynced bool     // TakeUnsynced has something
	news     bool     // TakeAcks has something
}

func (k *acks) find(origin crdt.Inc) (int, bool) {
	return slices.BinarySearchFunc(k.order, origin, func(a *asked, inc crdt.Inc) int { return cmp.Compare(a.origin, inc) })
}

// of is what is remembered of origin, or nil.
func (k *acks) of(origin crdt.Inc) *asked {
	if i, found := k.find(origin); found {
		return k.order[i]
	}
	return nil
}

// openAsked is what is remembered of origin, made now if there is nothing.
func (r *Replicator) openAsked(origin crdt.Inc, own bool) *asked {
	k := &r.acks
	if a := k.of(origin); a != nil {
		return a
	}
	if !own && len(k.order) >= maxAckOrigins {
		var oldest *asked
		for _, a := range k.order {
			if !a.own && (oldest == nil || a.askedAt < oldest.askedAt) {
				oldest = a
			}
		}
		if oldest != nil {
			r.stats.DropAsk++
			k.order = slices.DeleteFunc(k.order, func(a *asked) bool { return a == oldest })
		}
	}
	a := &asked{ask: ask{origin: origin}, own: own, askedAt: r.nowNs}
	i, _ := k.find(origin)
	k.order = slices.Insert(k.order, i, a)
	return a
}

// AskAcks asks all members to acknowledge what this replica wrote, up to seq: that
// it is applied, or, if synced, on disk. What they answer is in TakeAcks. It is to
// be called right after the write, so that the ask travels with the op.
func (r *Replicator) AskAcks(now time.Time, seq uint64, synced bool) {
	r.begin(now)
	a := r.openAsked(r.replica.Inc(), true)
	if synced {
		a.synced = max(a.synced, seq)
	} else {
		a.applied = max(a.applied, seq)
	}
	if a.awaited == 0 {
		r.await(a, seq)
	}
	r.ask(a, nil, false)
}

// ask starts a round of an own ask, or passes one on that came over from.
func (r *Replicator) ask(a *asked, from *link, wide bool) {
	if a.own {
		a.round = max(a.round+1, uint64(r.nowNs)) // nobody asks once a nanosecond: it never runs ahead of the clock, which goes on in the next life
	}
	a.wide, a.askedAt = wide, r.nowNs
	for _, l := range r.order {
		if l != from && l.role != RoleQuiet && (wide || r.passesOn(l, a.origin)) {
			r.askOn(l, a.origin)
		}
	}
}

// askOn has the ask of origin sent on l.
func (r *Replicator) askOn(l *link, origin crdt.Inc) {
	if !slices.Contains(l.asks, origin) {
		l.asks = append(l.asks, origin)
	}
	r.wake(l)
}

func (r *Replicator) await(a *asked, seq uint64) {
	a.awaited, a.pause, a.againAt = seq, askAgainFirst, r.nowNs+askAgainFirst
}

// AwaitAcks tells the lowest seq that is still waited for, by incarnation of this
// replica. While it does not rise, Tick asks again.
func (r *Replicator) AwaitAcks(now time.Time, lowest map[crdt.Inc]uint64) {
	r.begin(now)
	for _, a := range r.acks.order {
		if seq := lowest[a.origin]; a.own && a.awaited != seq {
			r.await(a, seq)
		}
	}
}

// TakeAcks calls each for the incarnations of this replica of which a member has
// acknowledged more since the last call. The rows are ascending by member; they are
// the callee's.
func (r *Replicator) TakeAcks(each func(origin crdt.Inc, rows []Ack)) {
	if !r.acks.news {
		return
	}
	r.acks.news = false
	for _, a := range r.acks.order {
		if !a.news {
			continue
		}
		a.news = false
		rows := make([]Ack, len(a.rows))
		for i := range a.rows {
			rows[i] = a.rows[i].Ack
		}
		each(a.origin, rows)
	}
}

// TakeUnsynced is, of each origin that asks for it, the last dot up to which its
// ops are applied here and are to be acknowledged when they are on disk. The owner
// tells Synced when all changes up to now are on disk; where nothing is kept on
// disk, it does not. Usually nil.
func (r *Replicator) TakeUnsynced() (dots []crdt.Dot) {
	if !r.acks.unsynced {
		return nil
	}
	r.acks.unsynced = false
	for _, a := range r.acks.order {
		if a.own {
			continue
		}
		if prefix := r.replica.Clock().Entry(a.origin).Prefix; a.syncing < min(prefix, a.synced) {
			a.syncing = prefix
			dots = append(dots, crdt.Dot{Inc: a.origin, Seq: prefix})
		}
	}
	return dots
}

// Synced tells that what TakeUnsynced said is on disk.
func (r *Replicator) Synced(now time.Time, dots []crdt.Dot) {
	r.begin(now)
	for _, d := range dots {
		if a := r.acks.of(d.Inc); a != nil && !a.own {
			r.acknowledge(a, Ack{Member: r.replica.Inc(), Applied: d.Seq, Synced: d.Seq})
		}
	}
}

// acknowledge takes a row over, and has it told on if it says something new.
func (r *Replicator) acknowledge(a *asked, ack Ack) {
	row := a.row(ack.Member)
	switch {
	case row == nil:
		r.stats.DropAck++
	case !row.raise(ack):
	case a.own:
		a.news, r.acks.news = true, true
	default:
		row.fresh = true
		r.tellAcks(a)
	}
}

// tellAcks has the fresh rows of a sent on.
func (r *Replicator) tellAcks(a *asked) {
	l := a.parent
	if l == nil {
		return
	}
	if !slices.Contains(l.acks, a.origin) {
		l.acks = append(l.acks, a.origin)
	}
	r.wake(l)
}

// ackApplied acknowledges what this replica has of a, as far as it is asked for.
func (r *Replicator) ackApplied(a *asked) {
	if a.own {
		return
	}
	prefix := r.replica.Clock().Entry(a.origin).Prefix
	if want := min(prefix, a.applied); want > 0 {
		if row := a.row(r.replica.Inc()); row == nil || row.Applied < want {
			r.acknowledge(a, Ack{Member: r.replica.Inc(), Applied: prefix})
		}
	}
	if a.syncing < min(prefix, a.synced) {
		r.acks.unsynced = true
	}
}

// askedBy takes an ask that came over l.
func (r *Replicator) askedBy(l *link, in ask) {
	r.stats.AsksReceived++
	if in.origin == 0 || in.origin == r.replica.Inc() || r.mirror.origin != 0 {
		return
	}
	a := r.acks.of(in.origin)
	switch {
	case a == nil:
		a = r.openAsked(in.origin, false)
	case a.own:
		return
	case in.round <= a.round:
		if a.parent == nil && in.round == a.round { // another way, after the first was lost
			r.setAckParent(a, l)
		}
		return
	}
	a.round = in.round
	a.applied, a.synced = max(a.applied, in.applied), max(a.synced, in.synced)
	if a.parent != l || in.wide {
		r.setAckParent(a, l)
	}
	r.ackApplied(a)
	r.ask(a, l, in.wide)
}

// setAckParent has all rows of a told over l.
func (r *Replicator) setAckParent(a *asked, l *link) {
	a.parent = l
	for i := range a.rows {
		a.rows[i].fresh = true
	}
	if len(a.rows) > 0 {
		r.tellAcks(a)
	}
}

// ackedBy takes rows that came over l.
func (r *Replicator) ackedBy(origin crdt.Inc, rows []Ack) {
	r.stats.AcksReceived += int64(len(rows))
	a := r.acks.of(origin)
	if a == nil {
		r.stats.DropAck += int64(len(rows))
		return
	}
	for _, row := range rows {
		r.acknowledge(a, row)
	}
}

// ackSettled acknowledges what the last change of the replica brought: the dots of
// these incarnations.
func (r *Replicator) ackSettled(incs []crdt.Inc) {
	if len(r.acks.order) == 0 {
		return
	}
	for _, inc := range incs {
		if a := r.acks.of(inc); a != nil {
			r.ackApplied(a)
		}
	}
}

// ackLinkDown forgets l as the way back.
func (r *Replicator) ackLinkDown(l *link) {
	for _, a := range r.acks.order {
		if a.parent == l {
			a.parent = nil
		}
	}
}

// ackLinkNew has the peer of l asked what is asked for.
func (r *Replicator) ackLinkNew(l *link) {
	for _, a := range r.acks.order {
		switch {
		case a.parent == l: // it may have forgotten
			r.setAckParent(a, l)
		case l.role != RoleQuiet:
			r.askOn(l, a.origin)
		}
	}
}

// tickAcks asks again, and forgets what is not asked for any more.
func (r *Replicator) tickAcks() {
	for _, a := range r.acks.order {
		if a.own && a.awaited != 0 && r.nowNs >= a.againAt {
			r.stats.AsksRepeated++
			r.ask(a, nil, true)
			a.pause = min(2*a.pause, askAgainMost)
			a.againAt = r.nowNs + a.pause
		}
	}
	r.acks.order = slices.DeleteFunc(r.acks.order, func(a *asked) bool {
		return a.awaited == 0 && r.nowNs-a.askedAt >= askedFor
	})
}

// acksDue is when tickAcks has something to do, if that is before due.
func (r *Replicator) acksDue(due int64) int64 {
	for _, a := range r.acks.order {
		if a.awaited != 0 {
			due = min(due, a.againAt)
		} else {
			due = min(due, a.askedAt+askedFor)
		}
	}
	return due
}
