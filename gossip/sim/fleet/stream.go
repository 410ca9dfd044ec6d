package fleet

import (
	"slices"

	"github.com/cespare/xxhash/v2"
)

const (
	frameBytes = 64 << 10
	// window is how much may be under way: the buffers of both ends.
	window = 512 << 10
)

// write is the writer of end i of l, until there is nothing to send or the
// stream takes no more.
func (f *Fleet) write(l *link, i int) {
	n, d := l.ends[i], &l.dirs[i]
	for {
		switch {
		case !l.told[i] || d.armed || d.stalled:
			return
		case d.freeAt > max(f.now, n.busy):
			f.arm(l, i, d.freeAt)
			return
		case d.flying >= window:
			d.stalled = true
			return
		}
		for again := true; again; again = !n.rep.Ready(l.peer[i]) && d.flying < window {
			// If nothing more is ready the writer is told so by a second call.
			data, ok := n.rep.NextFrame(f.clock(f.now), l.peer[i], nil, frameBytes)
			if !ok {
				return
			}
			f.send(l, i, data)
		}
	}
}

// arm lets the writer go on at a time.
func (f *Fleet) arm(l *link, i int, at int64) {
	l.dirs[i].armed = true
	f.queue.push(at, event{kind: doWrite, link: l, end: uint8(i), gen: l.gen})
}

func (f *Fleet) resume(l *link, end uint8, gen uint32) {
	if l.gen == gen && l.told[end] {
		l.dirs[end].armed = false
		f.write(l, int(end))
	}
}

// send brings a frame on its way, once the processor has made it.
func (f *Fleet) send(l *link, i int, data []byte) {
	n, d := l.ends[i], &l.dirs[i]
	f.Frames++
	f.traffic.count(data)
	f.note('f', uint64(n.id), uint64(l.ends[1-i].id), xxhash.Sum64(data))
	n.busy = max(n.busy, f.now) + n.slow*f.lan.cost(f.lan.Send, len(data))
	d.freeAt = max(d.freeAt, n.busy) + f.lan.wire(len(data))
	d.flying += len(data)
	switch {
	case !l.up:
		f.Lost++
	case f.cut(n.id, l.ends[1-i].id):
		d.held = append(d.held, data)
	default:
		f.fly(l, i, d.freeAt, data)
	}
}

// fly brings a frame that leaves at a time to the other end.
func (f *Fleet) fly(l *link, i int, leaves int64, data []byte) {
	d := &l.dirs[i]
	at := leaves + f.lan.latency(f.rng) + f.lan.retransmit(f.rng, len(data))
	d.last = max(d.last, at)
	f.queue.push(d.last, event{kind: doFrame, node: l.ends[1-i], link: l, end: uint8(1 - i), gen: l.gen, data: data})
}

// arrive gives a frame to its receiver, or to its inbox while it is busy.
func (f *Fleet) arrive(e event) {
	l, n := e.link, e.node
	if l.gen != e.gen || !l.up || !l.told[e.end] {
		f.Lost++
		return
	}
	if from := l.ends[1-e.end]; f.cut(from.id, n.id) { // it was under way
		l.dirs[1-e.end].held = append(l.dirs[1-e.end].held, e.data)
		return
	}
	if n.busy <= f.now && len(n.inbox) == 0 {
		f.step(arrival{link: l, end: e.end, gen: e.gen, data: e.data})
		return
	}
	if n.inbox = append(n.inbox, arrival{link: l, end: e.end, gen: e.gen, data: e.data}); len(n.inbox)-n.head == 1 {
		f.queue.push(max(n.busy, f.now), event{kind: doRun, node: n})
	}
	f.InboxMax = max(f.InboxMax, len(n.inbox)-n.head)
}

// run takes the next frame of n's inbox.
func (f *Fleet) run(n *node) {
	if n.head == len(n.inbox) { // the process ended in between
		return
	}
	if n.busy > f.now { // sending took some time
		f.queue.push(n.busy, event{kind: doRun, node: n})
		return
	}
	a := n.inbox[n.head]
	n.inbox[n.head] = arrival{}
	if n.head++; n.head == len(n.inbox) {
		n.inbox, n.head = n.inbox[:0], 0
	} else if n.head > 1024 && n.head > len(n.inbox)/2 {
		n.inbox, n.head = slices.Delete(n.inbox, 0, n.head), 0
	}
	if a.link.gen == a.gen && a.link.told[a.end] {
		f.step(a)
	}
	if n.head < len(n.inbox) {
		f.queue.push(max(n.busy, f.now), event{kind: doRun, node: n})
	}
}

// step gives a frame to the replicator. What follows from it happens when the
// processor is through with it.
func (f *Fleet) step(a arrival) {
	l, n := a.link, a.link.ends[a.end]
	n.busy = max(n.busy, f.now) + n.slow*f.lan.cost(f.lan.Receive, len(a.data))
	f.note('d', uint64(n.id), uint64(a.gen))
	if err := n.rep.Step(f.clock(f.now), l.peer[a.end], a.data); err != nil {
		f.fail("%s: %v", n.self, err)
		return
	}
	d := &l.dirs[1-a.end]
	d.flying -= len(a.data)
	if d.stalled {
		d.stalled = false
		f.write(l, int(1-a.end))
	}
	f.effects(n)
}
