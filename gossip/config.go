package gossip

import (
	"math/rand/v2"
	"time"

	"github.com/meshkv/meshkv/crdt"
)

// PeerID names a peer of the keyspace: the node's name, a slash and its
// incarnation. Replicators order peers by it.
type PeerID string

// Config is what a Replicator is made with. Keyspace and Self are required.
type Config struct {
	Keyspace string
	Self     PeerID
	// Seed keys the hashes of the tries and must be the same at all nodes that
	// hold the keyspace: derive it from the keyspace's name.
	Seed uint64
	// Origin makes the keyspace a mirror: see Feed. It is the one incarnation whose ops
	// are taken, and must be none that a process has or had. 0: no mirror.
	Origin crdt.Inc
	// Rand is the source of link tokens, session ids and jitter, and is owned
	// by the Replicator from now on. Default: a fixed seed.
	Rand *rand.Rand
	// Budget bounds what waits on the links of all keyspaces of a node. Nil: no
	// bound but those of Limits.
	Budget Budget
	// Pace bounds the sessions of all keyspaces of a node. Nil: this replicator
	// has its own, with the bounds of Limits.
	Pace Pace
	// Limits are the bounds and periods; zero fields take their defaults.
	Limits Limits
}

// A Budget counts the bytes of the ops that wait to be sent to peers, over all
// replicators that share it: it must be safe for concurrent use. While it is
// exceeded, each of them drops its fullest queue as if that had overflowed. A
// replicator whose links are all down owes it nothing.
type Budget interface {
	// Add adds n, which may be 0 or negative, and reports whether the sum is
	// over the bound.
	Add(n int) (over bool)
}

// Limits bound what a Replicator holds and how often it acts. What happens at a
// bound is written at each; every time is counted in Stats.
type Limits struct {
	// QueueRefs and QueueBytes bound the ops that wait on one link. Over one of
	// them, or with more than 4,096 spans of dots in what coalesced, the queue is
	// dropped, the link is behind, and a session repairs it.
	// Defaults 65,536 and 64 MiB.
	QueueRefs, QueueBytes int
	// RingOps, RingBytes and RingAge bound the recent ops that GRAFTs are
	// served from. Defaults 65,536, 64 MiB and 60 s.
	RingOps, RingBytes int
	RingAge            time.Duration
	// IHaveEvery and IHaveSpans say how long an announcement waits for company,
	// and how many spans of dots at most do: consecutive dots of one origin are
	// one span, so that a steady stream of ops costs a message every IHaveEvery,
	// whatever its rate. Defaults 50 ms and 32.
	IHaveEvery time.Duration
	IHaveSpans int
	// GraftAfter is the least time that an announced dot may take to arrive by
	// itself before it is asked for; 1.5 round trips if that is more. Default 20 ms.
	GraftAfter time.Duration
	// LargeBytes is the size above which an op travels in a lane of its own, one
	// in a frame, and is announced instead of pushed where that may be for
	// nothing. Default 16 KiB.
	LargeBytes int
	// Origins bounds the incarnations for which it is remembered which links
	// their ops take. Of one that was forgotten, least recently used first, the
	// next op finds the tree anew. Default 65,536.
	Origins int
	// AnnounceSpans bounds the spans that wait to be announced, asked for or
	// served on one link; over 65,536 is 65,536, which is all that a message may
	// hold. WantEntries and WantSpans bound the announcements that are waited
	// for and the spans in them. What is over is left to a session. Defaults
	// 4,096, 1,024 and 32,768.
	AnnounceSpans, WantEntries, WantSpans int
	// SummaryEvery is the period of summaries on a link whose replica changed,
	// SummaryIdle that of others. Defaults 1 s and 30 s.
	SummaryEvery, SummaryIdle time.Duration
	// InboundSessions and OutboundSessions bound the sessions that peers began
	// and that we began; a peer over the bound is told BUSY. Default 2 each.
	// They and SessionBytes do not count where a Pace is given.
	InboundSessions, OutboundSessions int
	// SessionIdle is how long a session may go without a message before it is
	// aborted and tried again. Default 10 s.
	SessionIdle time.Duration
	// SessionBytes paces the sending of sessions, in bytes a second over all
	// links; a session from or to an empty replica is not paced. Default 8 MiB.
	SessionBytes int
	// FuseDrops and FusePercent: a session that would drop more cells than both,
	// and more than the peer knows dots that are new here, is not concluded until
	// another peer's session agrees or, where every other link is in sync, the
	// same peer's after FuseRetry. Defaults 1,000, 10 and 10 s.
	FuseDrops, FusePercent int
	FuseRetry              time.Duration
	// ScrubEvery is how often the tries are compared with the cells and the clock
	// that they stand for. Default 10 min.
	ScrubEvery time.Duration
	// MaxClockDrift is how far ahead of the local clock an HLC may be and still
	// be taken over by MaxHLC. Default 5 s.
	MaxClockDrift time.Duration
}

func (l Limits) withDefaults() Limits {
	number := func(p *int, def int) {
		if *p <= 0 {
			*p = def
		}
	}
	period := func(p *time.Duration, def time.Duration) {
		if *p <= 0 {
			*p = def
		}
	}
	number(&l.QueueRefs, 65_536)
	number(&l.QueueBytes, 64<<20)
	number(&l.RingOps, 65_536)
	number(&l.RingBytes, 64<<20)
	period(&l.RingAge, time.Minute)
	period(&l.IHaveEvery, 50*time.Millisecond)
	number(&l.IHaveSpans, 32)
	number(&l.LargeBytes, 16<<10)
	number(&l.Origins, 65_536)
	period(&l.GraftAfter, 20*time.Millisecond)
	number(&l.AnnounceSpans, 4_096)
	number(&l.WantEntries, 1_024)
	number(&l.WantSpans, 32_768)
	l.AnnounceSpans = min(l.AnnounceSpans, maxDotSpans)
	period(&l.SummaryEvery, time.Second)
	period(&l.SummaryIdle, 30*time.Second)
	number(&l.InboundSessions, 2)
	number(&l.OutboundSessions, 2)
	period(&l.SessionIdle, 10*time.Second)
	number(&l.SessionBytes, 8<<20)
	number(&l.FuseDrops, 1_000)
	number(&l.FusePercent, 10)
	period(&l.FuseRetry, 10*time.Second)
	period(&l.ScrubEvery, 10*time.Minute)
	period(&l.MaxClockDrift, 5*time.Second)
	return l
}
