package gossip

import "time"

// A Pace bounds what the sessions of all replicators that share it cost: how many
// there are at a time, and how fast they send. A node gives the same one to all of
// its keyspaces, which then must be safe for concurrent use; a replicator that is
// given none has its own.
type Pace interface {
	// Begin takes a place for a session that we begin, or that a peer began, and
	// reports whether there was one. End gives it back.
	Begin(outbound bool) bool
	End(outbound bool)
	// Ready reports whether paced sessions may send now, in ns since the epoch,
	// and Spend takes note of what they sent.
	Ready(nowNs int64) bool
	Spend(bytes int)
}

// A SessionPace is the plain Pace. Not safe for concurrent use.
type SessionPace struct {
	rate              float64 // bytes a second
	inbound, outbound int     // places left
	tokens            float64 // bytes that may be sent now
	at                int64   // when tokens were added last
}

// NewSessionPace is a pace with the bounds of l.
func NewSessionPace(l Limits) *SessionPace {
	l = l.withDefaults()
	rate := float64(l.SessionBytes)
	return &SessionPace{rate: rate, inbound: l.InboundSessions, outbound: l.OutboundSessions, tokens: rate / 4}
}

func (p *SessionPace) places(outbound bool) *int {
	if outbound {
		return &p.outbound
	}
	return &p.inbound
}

// Begin implements Pace.
func (p *SessionPace) Begin(outbound bool) bool {
	free := p.places(outbound)
	if *free == 0 {
		return false
	}
	*free--
	return true
}

// End implements Pace.
func (p *SessionPace) End(outbound bool) { *p.places(outbound)++ }

// Ready implements Pace. What was not sent adds up to a quarter of a second.
func (p *SessionPace) Ready(nowNs int64) bool {
	if p.at != 0 && nowNs > p.at {
		p.tokens = min(p.tokens+p.rate*float64(nowNs-p.at)/float64(time.Second), p.rate/4)
	}
	// Keyspaces read their clocks apart, and one that was opened after the clock was
	// put back is behind the others for good: it must not wait for their time.
	if nowNs > p.at || p.at-nowNs > int64(time.Second) {
		p.at = nowNs
	}
	return p.tokens > 0
}

// Spend implements Pace.
func (p *SessionPace) Spend(bytes int) { p.tokens -= float64(bytes) }
