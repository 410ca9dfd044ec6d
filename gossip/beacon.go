package gossip

import (
	"time"

	"github.com/meshkv/meshkv/crdt"
)

const (
	// beaconEvery is the period of the beacons of an origin that wrote within
	// beaconFor. An idle keyspace sends none.
	beaconEvery = int64(5 * time.Second)
	beaconFor   = int64(time.Minute)
	// maxBeacons bounds the beacons that wait on one link. What is over is
	// dropped and counted: the next one comes in 5 s.
	maxBeacons = 256
)

// A beacon is the time at its origin. It spreads as an op would, without
// announcements and repair, so that the lag of an origin is known while it
// writes little, and a beacon that does not come says as much as one that is late.
//
// That of the origin of a mirror tells its position, too.
type beacon struct {
	origin   crdt.Inc
	at       crdt.HLC
	position Position // of a mirror, else zero
}

func appendBeacon(e *crdt.Encoder, b beacon) {
	mirrored := b.position != Position{}
	if mirrored {
		e.ArrayLen(3 + positionFields)
	} else {
		e.ArrayLen(3)
	}
	e.Uint(kindBeacon)
	e.Uint(uint64(b.origin))
	e.Uint(uint64(b.at))
	if mirrored {
		e.Uint(b.position.Seq)
		e.Uint(b.position.Revision)
	}
}

// takeBeacon takes a beacon. more is as for take.
func takeBeacon(d *crdt.Decoder, more *int) (b beacon, err error) {
	var origin, at uint64
	if err = takeUints(d, &origin, &at); err != nil {
		return b, err
	}
	b = beacon{origin: crdt.Inc(origin), at: crdt.HLC(at)}
	if *more < positionFields {
		return b, nil
	}
	*more -= positionFields
	b.position.At = b.at
	return b, takeUints(d, &b.position.Seq, &b.position.Revision)
}

// tickBeacon sends the beacon that is due.
func (r *Replicator) tickBeacon() {
	r.lags.tick(r.nowNs)
	if r.issuedAt == 0 || r.nowNs-r.issuedAt >= beaconFor {
		r.beaconAt = 0
		return
	}
	if r.beaconAt == 0 {
		// The write itself tells the lag of now. Where many nodes began to write at the
		// same time, their beacons must not come all at once for ever.
		r.beaconAt = r.issuedAt + beaconEvery/2 + r.cfg.Rand.Int64N(beaconEvery)
	}
	if r.nowNs < r.beaconAt {
		return
	}
	r.beaconAt = r.nowNs + beaconEvery
	b := beacon{origin: r.replica.Inc(), at: crdt.HLCAt(r.wallNs / int64(time.Millisecond))}
	for _, l := range r.order {
		if l.role != RoleQuiet {
			r.sendBeacon(l, b)
		}
	}
}

// beacon takes a beacon that came over from.
func (r *Replicator) beacon(from *link, b beacon) {
	r.stats.BeaconsReceived++
	if b.origin == r.replica.Inc() {
		return
	}
	if r.mirror.origin != 0 {
		if b.origin != r.mirror.origin {
			r.stats.DropForeign++
			return
		}
		r.position(from, b)
		return
	}
	ms := r.wallNs/int64(time.Millisecond) - b.at.WallMs()
	o := r.lags.origin(b.origin)
	switch {
	case o == nil, -ms > r.cfg.Limits.MaxClockDrift.Milliseconds():
		r.stats.DropBeacon++
		return
	case b.at <= o.beacon: // over another way
		return
	}
	o.beacon = b.at
	r.lags.note(o, ms, r.nowNs)
	for _, l := range r.order {
		if l != from && r.passesOn(l, b.origin) {
			r.sendBeacon(l, b)
		}
	}
}

func (r *Replicator) sendBeacon(l *link, b beacon) {
	for i := range l.beacons {
		if l.beacons[i].origin == b.origin {
			l.beacons[i] = b
			return
		}
	}
	if len(l.beacons) >= maxBeacons {
		r.stats.DropBeacon++
		return
	}
	l.beacons = append(l.beacons, b)
	r.wake(l)
}

// passesOn reports whether what origin issued goes on over l from here.
func (r *Replicator) passesOn(l *link, origin crdt.Inc) bool {
	if o := r.tree.origins[origin]; o != nil {
		return r.eager(l, o)
	}
	return l.role == RoleTree
}
