package replica

import (
	"testing"
	"time"
)

func TestPace(t *testing.T) {
	const ms = time.Millisecond
	type entry struct {
		took           time.Duration
		commands, came int
	}
	for name, c := range map[string]struct {
		entries []entry
		until   time.Duration
		want    int
	}{
		"one caller waits for nobody but himself":  {[]entry{{2 * ms, 1, 0}, {2 * ms, 1, 0}}, ms / 2, 1},
		"an idle machine: those who were answered": {[]entry{{2 * ms, 10, 0}, {2 * ms, 10, 5}}, ms / 2, 10},
		"a busy machine: all, for what it is late": {[]entry{{2 * ms, 10, 0}, {9 * ms, 10, 5}}, 7 * ms, 15},
		"never for longer than the bound":          {[]entry{{2 * ms, 10, 0}, {time.Minute, 10, 5}}, 20 * ms, 15},
		"a fast entry counts at once":              {[]entry{{9 * ms, 10, 0}, {2 * ms, 10, 5}, {3 * ms, 4, 4}}, ms, 8},
	} {
		t.Run(name, func(t *testing.T) {
			var p pace
			for _, e := range c.entries {
				p.flown(e.took, e.commands, e.came)
			}
			if diff := (p.until - c.until).Abs(); diff > 10*time.Microsecond || p.want != c.want {
				t.Errorf("waits %v for %d, want %v for %d", p.until, p.want, c.until, c.want)
			}
		})
	}
	// What was fast once is forgotten, as fast as entries come.
	var p pace
	p.flown(ms, 5, 0)
	for range 20_000 {
		p.flown(10*ms, 5, 5)
	}
	if p.until != leastLinger {
		t.Errorf("after 20,000 slow entries it still waits %v", p.until)
	}
}
