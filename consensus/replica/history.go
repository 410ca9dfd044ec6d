package replica

import (
	"context"
	"errors"
	"time"

	"github.com/meshkv/meshkv/consensus/machine"
)

const (
	// historySamples is how exactly the age of history is known: to a part of HistoryAge.
	historySamples = 60
	// compactEvery is how often it is looked whether history is to be compacted, and compactSoon how soon
	// again when it was: what is written in between is kept beyond the bounds.
	compactEvery = 2 * time.Second
	compactSoon  = compactEvery / 4
	// historyLeast is how many changes are kept whatever their bytes.
	historyLeast = 1000
	// compactStep is how many revisions one command compacts: what it costs delays others.
	compactStep = 2048
)

// A history says what is to be compacted. A new leader knows no ages: it counts them from when
// it begins.
type history struct {
	r       *Replica
	samples []sample // ascending, at most historySamples and one
}

type sample struct {
	at       time.Time
	revision machine.Revision
}

func newHistory(r *Replica) *history { return &history{r: r} }

// goal is the oldest revision to keep.
func (h *history) goal(now time.Time, st machine.Status) machine.Revision {
	every := h.r.cfg.HistoryAge / historySamples
	if n := len(h.samples); n == 0 || now.Sub(h.samples[n-1].at) >= every {
		h.samples = append(h.samples, sample{now, st.Revision})
	}
	goal := st.Compacted
	for len(h.samples) > 0 && now.Sub(h.samples[0].at) >= h.r.cfg.HistoryAge {
		goal = max(goal, h.samples[0].revision)
		h.samples = h.samples[1:]
	}
	if most := h.most(st); st.Changes > most {
		// Each revision has a change, or more: this may keep fewer than allowed.
		if keep := machine.Revision(most); st.Revision > keep {
			goal = max(goal, st.Revision-keep)
		}
	}
	// Before growth is refused history goes.
	if st.Bytes > st.Quota-st.Quota/16 {
		return st.Revision
	}
	if keep := machine.Revision(h.r.cfg.HistoryChanges / 10); st.Bytes > st.Quota-st.Quota/4 && st.Revision > keep {
		goal = max(goal, st.Revision-keep)
	}
	return goal
}

// most is how many changes are kept: as many as their bytes, if they are like those that there
// are, allow.
func (h *history) most(st machine.Status) int {
	if st.History <= h.r.cfg.HistoryBytes {
		return h.r.cfg.HistoryChanges
	}
	fit := float64(st.Changes) * float64(h.r.cfg.HistoryBytes) / float64(st.History)
	return min(max(int(fit), historyLeast), h.r.cfg.HistoryChanges)
}

// run compacts as long as ctx lasts.
func (h *history) run(ctx context.Context) {
	timer := time.NewTimer(compactEvery)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		if h.compact(ctx) {
			timer.Reset(compactSoon)
		} else {
			timer.Reset(compactEvery)
		}
	}
}

// compact compacts up to the goal, in steps, and reports whether there was something to compact.
func (h *history) compact(ctx context.Context) (did bool) {
	goal := h.goal(time.Now(), h.r.View().Status())
	for ctx.Err() == nil {
		compacted := h.r.View().Status().Compacted
		if goal <= compacted {
			return did
		}
		err := h.r.proposeOwn(&machine.Compact{Revision: min(goal, compacted+compactStep)})
		if err != nil && !errors.Is(err, machine.ErrCompacted) {
			h.r.log.Debug("history not compacted", "err", err)
			return did
		}
		did = true
	}
	return did
}
