package gossip

import (
	"math"
	"testing"
	"time"
)

func TestClockOff(t *testing.T) {
	const limit = 2500 * time.Millisecond
	s := func(seconds ...float64) (all []time.Duration) {
		for _, x := range seconds {
			all = append(all, time.Duration(x*float64(time.Second)))
		}
		return all
	}
	tests := []struct {
		name    string
		offsets []time.Duration
		median  time.Duration
		off     bool
	}{
		{"nobody", nil, 0, false},
		{"two cannot tell", s(10, 10), 10 * time.Second, false},
		{"three agree that we are behind", s(10, 9, 11), 10 * time.Second, true},
		{"three agree that we are ahead", s(-3, -2.6, -9), -3 * time.Second, true},
		{"one of three is wrong", s(3600, 0.1, -0.1), 100 * time.Millisecond, false},
		{"at the limit", s(2.5, 2.5, 2.5), limit, false},
		{"half of four", s(9, 9, 0, 0), 0, false},
		{"half of four, the other way", s(-9, -9, 0, 0), 0, false},
		{"three of four", s(9, 9, 9, 0), 9 * time.Second, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if median, off := ClockOff(tt.offsets, limit); median != tt.median || off != tt.off {
				t.Errorf("got %s, %v; want %s, %v", median, off, tt.median, tt.off)
			}
		})
	}
}

// Each side of a link learns how far the other's clock is from its own.
func TestClockOffsetOfPeer(t *testing.T) {
	a, b := newReplicator("a", 1, Limits{}), newReplicator("b", 2, Limits{})
	ahead := start.Add(7 * time.Second)
	a.LinkUp(start, "b", RoleDirect)
	b.LinkUp(ahead, "a", RoleDirect)
	a.SetRTT("b", 100*time.Millisecond)
	frame, _ := b.NextFrame(ahead, "a", nil, 1<<16)
	if err := a.Step(start, "b", frame); err != nil {
		t.Fatal(err)
	}
	if l := a.Links()[0]; !l.Heard || l.ClockOffset != 7050*time.Millisecond {
		t.Fatalf("offset %s, want 7.05 s", l.ClockOffset)
	}
	a.links["b"].theirClock(math.MaxUint64, start.UnixNano())
	if l := a.Links()[0]; l.ClockOffset < 0 {
		t.Errorf("an absurd clock is %s away", l.ClockOffset)
	}
}

// A wall clock that was an hour ahead and is put right: timers go on, and do not
// stand still until the old time comes again.
func TestTimersOutliveAClockThatStepsBack(t *testing.T) {
	a, b, c := newReplicator("a", 1, Limits{}), newReplicator("b", 2, Limits{}), newReplicator("c", 3, Limits{})
	linkUp(start, a, b)
	linkUp(start, b, c)
	now := run(t, start, 5*time.Second, a, b, c)
	now = now.Add(-time.Hour)
	d := mustPut(t, a, now, "x")
	run(t, now, 10*time.Second, a, b, c)
	if !c.Replica().Clock().Contains(d) {
		t.Error("c does not know it 10 s after the step")
	}
}
