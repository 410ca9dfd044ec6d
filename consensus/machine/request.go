package machine

import (
	"bytes"

	"github.com/meshkv/meshkv/crdt"
)

// A Request names a command, so that its client may send it again after an unknown
// outcome. The rule:
//
//   - The result of a numbered command is kept, errors included, and a repetition is
//     answered with it and not applied (Result.Duplicate).
//   - Kept are the results of the last RequestWindow numbers of a client, of the
//     MaxClients that were heard of last, MaxRecorded bytes in all; what is oldest goes
//     first, whole clients before results of the only one. A client gives its results
//     back with Floor.
//   - A number at or below the floor of its client, which is the highest that was given
//     or that fell out of the window, is refused with ErrRequestForgotten if its result
//     is not kept.
//   - A client that is not known is refused with ErrRequestForgotten if it may have been
//     dropped: if it names a Since before the last use of a client that was dropped, or
//     if it names none and has given results back. Otherwise it is new. So a client that
//     sends Since is never applied twice; one that does not, only while it is kept.
type Request struct {
	// Client is the client's, 1 to MaxClientID bytes, unique for ever. Empty: the
	// command is no request, and the other fields are 0.
	Client string
	// Number counts the client's requests from 1.
	Number uint64
	// Floor: the client has the results up to this number and asks for none again.
	Floor uint64
	// Since is an index that the keyspace had applied (Status.Applied) before the client
	// sent its first request, and stays the same for all of them. 0: unknown.
	Since uint64
}

// A client is what is known of one. It is never modified.
type client struct {
	id    string
	floor uint64
	used  uint64 // index of its last command
	kept  int    // results; derived
}

// A recorded result. It is never modified.
type recorded struct {
	client string
	number uint64
	result []byte
}

func (a *recorded) less(b *recorded) bool {
	return a.client < b.client || a.client == b.client && a.number < b.number
}

func (w writer) request(q Request) {
	w.Str(q.Client)
	w.Uint(q.Number)
	w.Uint(q.Floor)
	w.Uint(q.Since)
}

func (r *reader) request() Request {
	q := Request{r.str(MaxClientID), r.uint(), r.uint(), r.uint()}
	if q.Client == "" {
		r.check(q == Request{})
	} else {
		r.check(q.Number > 0)
	}
	return q
}

// recall is the result of a request that was applied before or cannot be applied, and
// whether it is one of these.
func (m *Machine) recall(q Request) (res Result, answered bool) {
	if q.Client == "" {
		return Result{}, false
	}
	forgotten := Result{Err: ErrRequestForgotten, Revision: m.revision}
	c, known := m.clients.Get(&client{id: q.Client})
	if !known {
		dropped := q.Since < m.forgotten
		if q.Since == 0 {
			dropped = q.Floor > 0
		}
		return forgotten, dropped || q.Number <= q.Floor
	}
	if rec, ok := m.recorded.Get(&recorded{client: q.Client, number: q.Number}); ok {
		r := newReader(rec.result)
		res = r.result()
		res.Duplicate = true
		m.touch(c, q)
		return res, true
	}
	return forgotten, q.Number <= max(c.floor, q.Floor)
}

// touch marks c as used by q, and gives back the results below its floor.
func (m *Machine) touch(c *client, q Request) *client {
	next := *c
	next.used = m.applied
	for next.floor = max(next.floor, q.Floor); next.kept > 0; {
		rec := m.oldest(next.id)
		if rec.number > next.floor {
			break
		}
		m.forget(rec)
		next.kept--
	}
	m.used.Delete(c)
	m.used.Set(&next)
	m.clients.Set(&next)
	return &next
}

// oldest is the lowest result that is kept of a client, of whom some is.
func (m *Machine) oldest(id string) (found *recorded) {
	m.recorded.Ascend(&recorded{client: id}, func(rec *recorded) bool {
		found = rec
		return false
	})
	return found
}

func (m *Machine) forget(rec *recorded) {
	m.recorded.Delete(rec)
	m.kept -= uint64(len(rec.result))
}

// record keeps the result of a request that was applied, and makes room for it.
func (m *Machine) record(q Request, res *Result) {
	if q.Client == "" {
		return
	}
	c, known := m.clients.Get(&client{id: q.Client})
	if !known {
		c = &client{id: q.Client, used: m.applied}
	}
	c = m.touch(c, q)
	w := writer{crdt.NewEncoder()}
	appendResult(w, res)
	m.recorded.Set(&recorded{q.Client, q.Number, bytes.Clone(w.Bytes())})
	m.kept += uint64(len(w.Bytes()))
	c.kept++ // no view has seen c yet
	for {
		crowded := m.clients.Len() > MaxClients || m.kept > MaxRecorded
		switch {
		case crowded && m.clients.Len() > 1:
			m.dropClient() // never c, which was used last
		case crowded || c.kept > RequestWindow:
			rec := m.oldest(c.id)
			m.forget(rec)
			c.kept--
			c.floor = rec.number
		default:
			return
		}
	}
}

// dropClient drops the client that was not heard of for longest.
func (m *Machine) dropClient() {
	c, _ := m.used.PopMin()
	m.clients.Delete(c)
	m.forgotten = c.used
	for ; c.kept > 0; c.kept-- {
		m.forget(m.oldest(c.id))
	}
}
