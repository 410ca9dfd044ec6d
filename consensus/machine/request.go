package machine

import (
	"bytes"
	"cmp"
	"slices"

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
	id      string
	floor   uint64
	used    uint64      // index of its last command
	results []*recorded // by ascending number, all above floor
}

// A recorded result. It is never modified.
type recorded struct {
	number uint64
	result []byte
}

// find is where the result of a number is among results, or would be.
func find(results []*recorded, number uint64) (at int, ok bool) {
	return slices.BinarySearchFunc(results, number, func(rec *recorded, n uint64) int { return cmp.Compare(rec.number, n) })
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
// whether it is one of these. c is its client, nil if it is not known.
func (m *Machine) recall(q Request) (c *client, res Result, answered bool) {
	if q.Client == "" {
		return nil, Result{}, false
	}
	forgotten := Result{Err: ErrRequestForgotten, Revision: m.revision}
	c, known := m.clients.Get(&client{id: q.Client})
	if !known {
		dropped := q.Since < m.forgotten
		if q.Since == 0 {
			dropped = q.Floor > 0
		}
		return nil, forgotten, dropped || q.Number <= q.Floor
	}
	if at, ok := find(c.results, q.Number); ok {
		res = newReader(c.results[at].result).result()
		res.Duplicate = true
		m.touch(c, q, nil)
		return c, res, true
	}
	return c, forgotten, q.Number <= max(c.floor, q.Floor)
}

// touch marks c as used by q, gives back the results below its floor, and adds one, if
// it is not nil.
func (m *Machine) touch(c *client, q Request, add *recorded) *client {
	next := &client{id: c.id, floor: max(c.floor, q.Floor), used: m.applied}
	given, exact := find(c.results, next.floor)
	if exact {
		given++
	}
	for _, rec := range c.results[:given] {
		m.forget(rec)
	}
	// A new slice: one that was cut would keep what was given back in memory.
	kept := c.results[given:]
	next.results = make([]*recorded, 0, len(kept)+1)
	at := len(kept)
	if add != nil {
		at, _ = find(kept, add.number)
	}
	next.results = append(next.results, kept[:at]...)
	if add != nil {
		next.results = append(next.results, add)
		m.kept += uint64(len(add.result))
		m.results++
	}
	next.results = append(next.results, kept[at:]...)
	m.used.Delete(c)
	m.used.Set(next)
	m.clients.Set(next)
	return next
}

func (m *Machine) forget(rec *recorded) {
	m.kept -= uint64(len(rec.result))
	m.results--
}

// record keeps the result of a request that was applied, and makes room for it. c is its
// client, nil if it is new.
func (m *Machine) record(c *client, q Request, res *Result) {
	if q.Client == "" {
		return
	}
	if c == nil {
		c = &client{id: q.Client, used: m.applied}
	}
	w := writer{crdt.NewEncoder()}
	appendResult(w, res)
	c = m.touch(c, q, &recorded{q.Number, bytes.Clone(w.Bytes())})
	for {
		crowded := m.clients.Len() > MaxClients || m.kept > MaxRecorded
		switch {
		case crowded && m.clients.Len() > 1:
			m.dropClient() // never c, which was used last
		case crowded || len(c.results) > RequestWindow:
			// No view has seen c yet.
			m.forget(c.results[0])
			c.floor, c.results = c.results[0].number, c.results[1:]
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
	for _, rec := range c.results {
		m.forget(rec)
	}
}
