package gossip

import "github.com/meshkv/meshkv/crdt"

const rowFields = 3 // of a row of acks

// appendAcks appends what the peer of l is to be asked and told.
func (r *Replicator) appendAcks(l *link) {
	for _, origin := range l.asks {
		if a := r.acks.of(origin); a != nil {
			r.stats.AsksSent++
			appendAsk(r.enc, a.ask)
		}
	}
	l.asks = l.asks[:0]
	for room := maxRowsInMessage; len(l.acks) > 0 && room > 0; {
		origin := l.acks[0]
		var rows []Ack
		more := false
		if a := r.acks.of(origin); a != nil && a.parent == l {
			rows, more = a.takeFresh(room)
		}
		if !more {
			l.acks = append(l.acks[:0], l.acks[1:]...)
		}
		if len(rows) > 0 {
			room -= len(rows)
			r.stats.AcksSent += int64(len(rows))
			appendRows(r.enc, origin, rows)
		}
	}
}

func appendAsk(e *crdt.Encoder, a ask) {
	e.ArrayLen(6)
	e.Uint(kindAsk)
	e.Uint(uint64(a.origin))
	e.Uint(a.round)
	e.Uint(a.applied)
	e.Uint(a.synced)
	e.Bool(a.wide)
}

func takeAsk(d *crdt.Decoder) (a ask, err error) {
	var origin uint64
	if err = takeUints(d, &origin, &a.round, &a.applied, &a.synced); err != nil {
		return a, err
	}
	a.origin = crdt.Inc(origin)
	a.wide, err = d.Bool()
	return a, err
}

func appendRows(e *crdt.Encoder, origin crdt.Inc, rows []Ack) {
	e.ArrayLen(3)
	e.Uint(kindAcks)
	e.Uint(uint64(origin))
	e.ArrayLen(rowFields * len(rows))
	for _, row := range rows {
		e.Uint(uint64(row.Member))
		e.Uint(row.Applied)
		e.Uint(row.Synced)
	}
}

func takeRows(d *crdt.Decoder) (origin crdt.Inc, rows []Ack, err error) {
	var u uint64
	if err = takeUints(d, &u); err != nil {
		return 0, nil, err
	}
	n, err := d.ArrayLen(rowFields * maxRowsInMessage)
	if err == nil && n%rowFields != 0 {
		err = malformed("part of a row of acknowledgements")
	}
	if err != nil {
		return 0, nil, err
	}
	rows = make([]Ack, 0, min(n/rowFields, 64)) // grows as they come
	for range n / rowFields {
		var member uint64
		var row Ack
		if err := takeUints(d, &member, &row.Applied, &row.Synced); err != nil {
			return 0, nil, err
		}
		row.Member = crdt.Inc(member)
		rows = append(rows, row)
	}
	return crdt.Inc(u), rows, nil
}
