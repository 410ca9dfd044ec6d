package replica

import "time"

const (
	// leastLinger is how long a batch may wait for more commands in any case.
	leastLinger = 500 * time.Microsecond
	// mostLinger bounds it.
	mostLinger = 20 * time.Millisecond
)

// A pace says for how many commands a batch waits, and how long: for those that are about
// to come, since callers who got their outcome give the next command. An entry costs the
// same whatever it holds. When there is time for more entries, few wait is best; when
// entries take longer than they need, the machine has too many of them, here or in other
// groups, and larger ones bring more for all.
type pace struct {
	floor time.Duration // what an entry takes when nothing else is in its way
	until time.Duration // how long a batch may wait
	want  int           // commands that are about to be there
}

// flown takes note of an entry: how long it took, of how many commands it was, and how
// many had come meanwhile.
func (p *pace) flown(took time.Duration, commands, came int) {
	p.floor += p.floor / 4096 // the disk or the network may not be what they were
	if p.floor == 0 || took < p.floor {
		p.floor = took
	}
	p.until = min(max(took-p.floor, leastLinger), mostLinger)
	p.want = commands
	if p.until > leastLinger {
		p.want += came
	}
}
