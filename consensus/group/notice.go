package group

import (
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

const (
	// noticeDelay is how long a notice waits for an entry that makes it needless,
	// when commits follow each other and nobody asks; at most it is twice that.
	noticeDelay = 20 * time.Millisecond
	// noticeCalm is how long after the last commit the next one is a lone one, of
	// which notice is given at once.
	noticeCalm = 80 * time.Millisecond
	// noticeRetry is how long a notice waits after one that may have got lost.
	noticeRetry = 50 * time.Millisecond
)

// A teller gives followers notice of what is committed when no entry does. Raft
// tells them with the next entry, or after commitTimeout; a read at a follower, and
// a watch there, would wait that long.
//
// A notice is an append without entries, as Raft itself sends it (Raft, Ongaro 2014,
// §3.5): the entry before is the one up to which the follower is to learn that all is
// committed. So it is true of any follower that accepts it, however late it comes:
// what is committed never changes, the term is one that this replica led, and a
// follower without that very entry refuses. Nobody acts on an answer but to see that
// the follower knows.
//
// It sends one for each follower at a time, and one only for each index, until the
// follower could not be reached: then another one, when heartbeats reach it again. A
// follower that waits for an index, since somebody reads there, gets notice of it at once.
type teller struct {
	g *Group

	commit uint64    // at the last look
	at     time.Time // when that was new
	lone   bool      // nothing was committed in the time before
	asked  bool      // a follower waits for more than it was told
	debts  map[raft.ServerID]*debt
}

// A debt is what a follower is to be told.
type debt struct {
	goal  uint64 // index of the entry
	due   time.Time
	tried uint64 // the last one that was sent
	lost  uint64 // follower.losses at the last look
	busy  atomic.Bool
}

// run works whenever this replica leads.
func (t *teller) run() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		now, changed := t.g.Leadership()
		if !now.Leads {
			select {
			case <-changed:
				continue
			case <-t.g.ctx.Done():
				return
			}
		}
		t.debts = make(map[raft.ServerID]*debt)
		for over := false; !over; {
			select {
			case <-changed:
				over = true
			case <-t.g.ctx.Done():
				return
			case <-t.g.progress.answered:
			case <-t.g.progress.asked:
			case <-t.g.applier.applying:
			case <-timer.C:
			}
			wait := t.look(now.Term, time.Now())
			if wait > 0 {
				timer.Reset(wait)
			}
			if !t.lone && !t.asked && time.Since(t.at) < noticeCalm {
				over = t.pause(changed)
			}
		}
	}
}

// pause lets noticeDelay pass, or until a follower asks: commits follow each other, and
// each would wake the teller several times. It reports whether changed was closed, or the
// replica ended.
func (t *teller) pause(changed <-chan struct{}) (over bool) {
	timer := time.NewTimer(noticeDelay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return false
	case <-t.g.progress.asked:
		signal(t.g.progress.asked) // for run, which looks
		return false
	case <-changed:
	case <-t.g.ctx.Done():
	}
	return true
}

// look gives the notices that are due, and returns how long the next ones are to
// wait, or 0.
func (t *teller) look(term uint64, now time.Time) (wait time.Duration) {
	commit := t.g.commitIndex()
	if leads, ok := t.g.leads(); !ok || leads != term {
		return 0
	}
	if commit > t.commit {
		t.lone = now.Sub(t.at) > noticeCalm
		t.commit, t.at = commit, now
	}
	unsettled := false
	t.asked = false
	for id, f := range t.g.progress.of(term) {
		unsettled = unsettled || f.match > commit
		d := t.debts[id]
		if d == nil {
			d = new(debt)
			t.debts[id] = d
		}
		t.asked = t.asked || f.asked > f.commit
		goal := min(commit, f.match)
		if f.losses != d.lost {
			d.lost, d.tried, d.goal, d.due = f.losses, 0, goal, now.Add(noticeRetry)
		}
		if f.commit >= goal || d.tried >= goal || d.busy.Load() || t.g.progress.unreachable(id) != nil {
			continue
		}
		if f.commit >= d.goal || d.tried >= d.goal { // what was due was told
			d.goal, d.due = goal, now
			if !t.lone {
				d.due = now.Add(noticeDelay)
			}
		}
		if left := d.due.Sub(now); left > 0 && f.asked <= f.commit {
			if wait == 0 || left < wait {
				wait = left
			}
			continue
		}
		d.tried = goal
		t.send(d, raft.Server{ID: id, Address: f.addr}, term, goal)
	}
	// Raft commits what was answered a moment later. It tells who applies, but of its
	// own entries nobody.
	if unsettled && wait == 0 {
		wait = noticeDelay
	}
	return wait
}

// send is one notice. What is not in the log any more is for Raft to tell.
func (t *teller) send(d *debt, to raft.Server, term, index uint64) {
	var entry raft.Log
	if err := t.g.cfg.Log.GetLog(index, &entry); err != nil {
		return // compacted, or the log has failed
	}
	if !t.g.replicatesTo(to) {
		return
	}
	req := t.g.appendRequest(term)
	req.PrevLogEntry, req.PrevLogTerm, req.LeaderCommitIndex = entry.Index, entry.Term, index
	d.busy.Store(true)
	err := t.g.transport.notify(to, &req, func() {
		d.busy.Store(false)
		signal(t.g.progress.answered) // there may be more by now
	})
	if err != nil { // and the follower is lost
		d.busy.Store(false)
		t.g.cfg.Logger.Debug("follower was given no notice", "peer", string(to.ID), "index", index, "err", err)
	}
}

// signal wakes whoever reads c, of capacity 1.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
