package node

import (
	"testing"
	"time"
)

// A pacer lets what a quiet node sends go at once, gathers what a busy one sends into
// slots, and lets go again some time after the load ended.
func TestPacer(t *testing.T) {
	start := time.Unix(1_000, 0)
	const links = 15
	slot := links * time.Second / smallFrames
	for name, c := range map[string]struct {
		every time.Duration // a frame
		bytes int
		count int
		quiet time.Duration // then
		paced bool
	}{
		"spaced":            {every: 5 * time.Millisecond, bytes: 200, count: 2000, paced: false},
		"a burst":           {bytes: 200, count: smallBurst - 1, paced: false},
		"too much at once":  {bytes: 200, count: smallBurst + 1, paced: true},
		"too much for long": {every: time.Second / smallFrames / 2, bytes: 200, count: 3 * smallFrames, paced: true},
		"large frames":      {bytes: smallFrame, count: 10 * smallBurst, paced: false},
		"just ended":        {bytes: 200, count: 10 * smallBurst, quiet: 100 * time.Millisecond, paced: true},
		"long ended":        {bytes: 200, count: 10 * smallBurst, quiet: time.Second, paced: false},
	} {
		t.Run(name, func(t *testing.T) {
			var p pacer
			now := start
			p.wait(now, links)
			for range c.count {
				now = now.Add(c.every)
				p.sent(now, c.bytes)
			}
			now = now.Add(c.quiet)
			got := p.wait(now, links)
			if !c.paced {
				if got != 0 {
					t.Fatalf("waits %v", got)
				}
				return
			}
			if at := now.Add(got); got <= 0 || got > slot || !at.Truncate(slot).Equal(at) {
				t.Fatalf("waits %v, until %v", got, at)
			}
		})
	}
}

// Under steady load a pacer lets about smallFrames a second go, whatever the number of
// links.
func TestPacerRate(t *testing.T) {
	for _, links := range []int{2, 8, 16} {
		var p pacer
		now := time.Unix(1_000, 0)
		end := now.Add(20 * time.Second)
		sent := 0
		for now.Before(end) {
			for range links {
				p.sent(now, 200)
				sent++
			}
			now = now.Add(max(p.wait(now, links), 100*time.Microsecond))
		}
		if rate := sent / 20; rate > smallFrames*11/10 || rate < smallFrames*9/10 {
			t.Errorf("%d links: %d frames a second", links, rate)
		}
	}
}
