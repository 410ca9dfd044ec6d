package gossip

import (
	"cmp"
	"math/bits"
	"slices"
	"time"

	"github.com/meshkv/meshkv/crdt"
)

// Bounds of what is kept of lags.
const (
	// lagWindow is how far back the quantiles look: over the running half of it
	// and the half before.
	lagWindow = 5 * time.Minute
	// maxOrigins bounds the origins with a history of their own, of 350 bytes
	// each. Those beyond count in the total only, and their beacons go no
	// further: so a beacon can never circle because its origin was forgotten.
	maxOrigins = 1024
	// lagCells is two to an octave of milliseconds; the last one is unbounded
	// and begins at 13 min.
	lagCells = 40
)

// lagCell is where a lag is counted. A negative one says that the origin's
// clock is ahead of ours, and counts as none.
func lagCell(ms int64) int {
	if ms <= 1 {
		return int(max(ms, 0))
	}
	e := bits.Len64(uint64(ms)) - 1
	return min(2*e+int(ms>>(e-1)&1), lagCells-1)
}

// lagBound is the least lag that is above those of cell i.
func lagBound(i int) time.Duration {
	if i < 2 {
		return time.Duration(i+1) * time.Millisecond
	}
	half := time.Millisecond << (i / 2) / 2
	return time.Duration(3+i%2) * half
}

// lagHistory counts lags over a sliding window. The zero value is empty.
type lagHistory struct {
	now, before [lagCells]uint32 // the running half of the window, and the one before
	count       int64            // ever
	sumMs       int64
}

func (h *lagHistory) note(ms int64) {
	h.now[lagCell(ms)]++
	h.count++
	h.sumMs += max(ms, 0)
}

func (h *lagHistory) turn() { h.now, h.before = [lagCells]uint32{}, h.now }

// summary is the quantiles, each as the upper bound of its cell: at most half
// an octave too much.
func (h *lagHistory) summary() LagSummary {
	s := LagSummary{Count: h.count, Sum: time.Duration(h.sumMs) * time.Millisecond}
	for i := range lagCells {
		s.Recent += int64(h.now[i]) + int64(h.before[i])
	}
	var seen int64
	for i := range lagCells {
		n := int64(h.now[i]) + int64(h.before[i])
		if n == 0 {
			continue
		}
		seen += n
		if s.P50 == 0 && 2*seen >= s.Recent {
			s.P50 = lagBound(i)
		}
		if s.P99 == 0 && 100*seen >= 99*s.Recent {
			s.P99 = lagBound(i)
		}
	}
	return s
}

// A LagSummary describes how old ops and beacons were when they arrived here,
// by their origin's clock and ours.
type LagSummary struct {
	Count    int64         // ever
	Sum      time.Duration // ever
	Recent   int64         // in the last five minutes or so, as are the quantiles
	P50, P99 time.Duration // 0: nothing recent
}

// An OriginLag is the lag of what one origin wrote.
type OriginLag struct {
	Origin crdt.Inc
	Heard  time.Time // when its newest op or beacon came
	LagSummary
}

// lags is what is known of the lag of every origin.
type lags struct {
	origins map[crdt.Inc]*originLag
	total   lagHistory
	turnAt  int64
}

type originLag struct {
	history lagHistory
	heardAt int64
	beacon  crdt.HLC // the newest
}

// origin is the entry of inc, made now if there is room. Or nil.
func (g *lags) origin(inc crdt.Inc) *originLag {
	o := g.origins[inc]
	if o == nil && len(g.origins) < maxOrigins {
		if g.origins == nil {
			g.origins = make(map[crdt.Inc]*originLag)
		}
		o = &originLag{}
		g.origins[inc] = o
	}
	return o
}

// note counts the lag of something that inc issued. o may be nil.
func (g *lags) note(o *originLag, ms, nowNs int64) {
	g.total.note(ms)
	if o != nil {
		o.history.note(ms)
		o.heardAt = nowNs
	}
}

// tick moves the window along and forgets the origins that it has left.
func (g *lags) tick(nowNs int64) {
	if nowNs < g.turnAt {
		return
	}
	g.turnAt = nowNs + int64(lagWindow/2)
	g.total.turn()
	for inc, o := range g.origins {
		o.history.turn()
		if nowNs-o.heardAt >= int64(lagWindow) {
			delete(g.origins, inc)
		}
	}
}

// Lags is the lag of everything that arrived here, and of each origin that was
// heard of lately, the highest first: at most limit of them.
func (r *Replicator) Lags(limit int) (total LagSummary, origins []OriginLag) {
	for inc, o := range r.lags.origins {
		origins = append(origins, OriginLag{Origin: inc, Heard: time.Unix(0, o.heardAt), LagSummary: o.history.summary()})
	}
	slices.SortFunc(origins, func(a, b OriginLag) int {
		return cmp.Or(cmp.Compare(b.P99, a.P99), cmp.Compare(b.P50, a.P50), cmp.Compare(a.Origin, b.Origin))
	})
	return r.lags.total.summary(), origins[:min(limit, len(origins))]
}
