package node

import (
	"sync"
	"time"
)

const (
	// smallFrames is how many small frames a node sends a second, over all links
	// together, before its writers begin to wait for company. Each costs some 50 µs
	// of CPU at both ends, most of it wake-ups, and carries little.
	smallFrames = 600
	// smallBurst is how many of them a node that was quiet may send at once.
	smallBurst = 300
	// smallFrame is the size from which on a frame is not small, in bytes.
	smallFrame = 8 << 10
	// maxSlot bounds the wait of one frame.
	maxSlot = 50 * time.Millisecond
)

// A pacer lets the frames of a quiet node go at once, and those of a busy one in
// slots: all its links send at the same time and then gather until the next slot.
// The slots follow the wall clock, so that nodes whose clocks agree send at the
// same time, too, and a receiver wakes up once for the frames of many. Pure but
// for its mutex: the time is an argument.
type pacer struct {
	mu     sync.Mutex // protects the fields below
	tokens float64    // small frames that may be sent now; below 0 if too many were
	at     time.Time  // when tokens were added last
	paced  bool
}

// wait is how long a writer waits that has something to send over one of so many
// links: nothing, or until the next slot.
func (p *pacer) wait(now time.Time, links int) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refill(now)
	if !p.paced {
		return 0
	}
	slot := min(time.Duration(max(links, 1))*time.Second/smallFrames, maxSlot)
	return now.Truncate(slot).Add(slot).Sub(now)
}

// sent takes note of a frame.
func (p *pacer) sent(now time.Time, bytes int) {
	if bytes >= smallFrame {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refill(now)
	p.tokens--
	p.paced = p.paced || p.tokens < 0
}

// refill adds what time has brought. Who was paced stays so until there is a good
// part of a burst again: a little later the same load would end it anyway.
func (p *pacer) refill(now time.Time) {
	if d := now.Sub(p.at); d > 0 {
		p.tokens = min(p.tokens+d.Seconds()*smallFrames, smallBurst)
		if p.at.IsZero() {
			p.tokens = smallBurst
		}
		p.at = now
	}
	p.tokens = max(p.tokens, -smallBurst)
	p.paced = p.paced && p.tokens < smallBurst/2
}
