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
	// historyLeast is how many changes are kept whatever their bytes, as long as the quota is not near.
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

// goal is the oldest revision to keep of what view holds.
func (h *history) goal(now time.Time, view *machine.View) machine.Revision {
	st := view.Status()
	every := h.r.cfg.HistoryAge / historySamples
	if n := len(h.samples); n == 0 || now.Sub(h.samples[n-1].at) >= every {
		h.samples = append(h.samples, sample{now, st.Revision})
	}
	goal := st.Compacted
	for len(h.samples) > 0 && now.Sub(h.samples[0].at) >= h.r.cfg.HistoryAge {
		goal = max(goal, h.samples[0].revision)
		h.samples = h.samples[1:]
	}
	most := h.r.cfg.HistoryChanges
	// Before growth is refused history goes.
	if st.Bytes > st.Quota-st.Quota/16 {
		return st.Revision
	}
	if st.Bytes > st.Quota-st.Quota/4 {
		most /= 10
	}
	if st.Changes > most || st.History > h.r.cfg.HistoryBytes {
		goal = max(goal, view.Newest(most, h.r.cfg.HistoryBytes, min(historyLeast, most)))
	}
	return goal
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
	goal := h.goal(time.Now(), h.r.View())
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
