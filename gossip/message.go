package gossip

import (
	"fmt"
	"math"

	"github.com/meshkv/meshkv/crdt"
	"github.com/meshkv/meshkv/gossip/reconcile"
)

// A frame is a concatenation of messages, each an array whose first element is
// its kind. Kinds and elements that are not known are skipped.
//
//	hello    [1, token, the other's token, inc]  the first on a link; 0 = not known yet
//	op       [2, op]
//	ihave    [3, dots, large]              dots that the sender has; it pushes none that are large
//	graft    [4, dots]                     dots that the sender wants
//	summary  [5, hash, count, clock hash, clock count, ask, ms, last, hash, count, clock hash, clock count]
//	                               ms is what time it is at the sender, last and what follows
//	                               the cut, which may be left out
//	session  [6, link, id, number, payload]
//	busy     [7, id, ms]                   refuses session id; try after ms
//	abort    [8, link, id]                 ends session id without conclusion
//	prune    [9, incs]                     the sender has their ops from elsewhere
//	choke    [10, on]                      the sender takes no ops for now
//	behind   [11]                          the receiver relies on the sender no more
//	batch    [15, op]                      an op of several cells
//	beacon   [12, inc, hlc, seq, revision] what time it is at an origin that writes; of that of
//	                               a mirror, how far it is, which may be left out
//	ask      [13, origin, round, applied, synced, wide]  who has the origin's dots up to these says so
//	acks     [14, origin, [member, applied, synced, ...]]  how far members have them
//
// link is the sum of the tokens of both hellos: a message of an earlier link
// between the same peers is recognised by it and dropped.
const (
	kindHello = iota + 1
	kindOp
	kindIHave
	kindGraft
	kindSummary
	kindSession
	kindBusy
	kindAbort
	kindPrune
	kindChoke
	kindBehind
	kindBeacon
	kindAsk
	kindAcks
	kindBatch
)

// Bounds of messages.
const (
	maxMessageFields = 64
	maxDotSpans      = 1 << 16 // of an ihave or graft
	maxPrunes        = 1 << 12 // incarnations in a prune
	maxPayload       = 2 << 20 // of a session message: one cell of the largest size, and some
	maxBusyMs        = 60_000
	defaultFrame     = 64 << 10
	cutFields        = 5  // of the cut in a summary
	positionFields   = 2  // of the position in a beacon
	sessionOverhead  = 48 // of a session message beside its payload
)

// summary is what a peer says about its whole replica.
type summary struct {
	root reconcile.Root
	ask  bool // the sender wants a session: the receiver begins it, or else sends its summary

	wallMs uint64 // the sender's clock
	cut    *cut   // nil: as root
}

func appendHello(e *crdt.Encoder, mine, theirs uint64, inc crdt.Inc) {
	e.ArrayLen(4)
	e.Uint(kindHello)
	e.Uint(mine)
	e.Uint(theirs)
	e.Uint(uint64(inc))
}

func appendOp(e *crdt.Encoder, op *crdt.Op) {
	e.ArrayLen(2)
	if len(op.More) > 0 {
		e.Uint(kindBatch)
		e.Batch(op)
		return
	}
	e.Uint(kindOp)
	e.Op(op)
}

func appendDots(e *crdt.Encoder, kind uint64, d crdt.Dots) {
	e.ArrayLen(2)
	e.Uint(kind)
	e.Dots(d)
}

func appendIHave(e *crdt.Encoder, d crdt.Dots, large bool) {
	if !large {
		appendDots(e, kindIHave, d)
		return
	}
	e.ArrayLen(3)
	e.Uint(kindIHave)
	e.Dots(d)
	e.Bool(true)
}

func appendPrune(e *crdt.Encoder, incs []crdt.Inc) {
	e.ArrayLen(2)
	e.Uint(kindPrune)
	e.ArrayLen(len(incs))
	for _, inc := range incs {
		e.Uint(uint64(inc))
	}
}

func appendChoke(e *crdt.Encoder, on bool) {
	e.ArrayLen(2)
	e.Uint(kindChoke)
	e.Bool(on)
}

func appendBehind(e *crdt.Encoder) {
	e.ArrayLen(1)
	e.Uint(kindBehind)
}

func appendSummary(e *crdt.Encoder, s summary) {
	if s.cut == nil {
		e.ArrayLen(7)
	} else {
		e.ArrayLen(7 + cutFields)
	}
	e.Uint(kindSummary)
	appendRoot(e, s.root)
	e.Bool(s.ask)
	e.Uint(s.wallMs)
	if s.cut != nil {
		e.Uint(uint64(s.cut.last))
		appendRoot(e, s.cut.root)
	}
}

func appendRoot(e *crdt.Encoder, r reconcile.Root) {
	e.Uint(r.Data.Hash)
	e.Uint(r.Data.Count)
	e.Uint(r.Clock.Hash)
	e.Uint(r.Clock.Count)
}

// envelope is a session message without its payload. Sessions of one link are
// counted by the peer that begins them, and messages by their sender.
type envelope struct{ link, id, number uint64 }

func appendSession(e *crdt.Encoder, env envelope, payload []byte) {
	e.ArrayLen(5)
	e.Uint(kindSession)
	e.Uint(env.link)
	e.Uint(env.id)
	e.Uint(env.number)
	e.Bin(payload)
}

func appendBusy(e *crdt.Encoder, id, ms uint64) {
	e.ArrayLen(3)
	e.Uint(kindBusy)
	e.Uint(id)
	e.Uint(ms)
}

func appendAbort(e *crdt.Encoder, link, id uint64) {
	e.ArrayLen(3)
	e.Uint(kindAbort)
	e.Uint(link)
	e.Uint(id)
}

// takeHead takes the beginning of a message: its kind, and how many elements
// follow it.
func takeHead(d *crdt.Decoder) (kind uint64, fields int, err error) {
	n, err := d.ArrayLen(maxMessageFields)
	if err != nil {
		return 0, 0, err
	}
	if n == 0 {
		return 0, 0, fmt.Errorf("%w: message without a kind", crdt.ErrCodec)
	}
	kind, err = d.Uint()
	return kind, n - 1, err
}

// takeIncs takes the incarnations of a prune.
func takeIncs(d *crdt.Decoder) ([]crdt.Inc, error) {
	n, err := d.ArrayLen(maxPrunes)
	if err != nil {
		return nil, err
	}
	incs := make([]crdt.Inc, 0, min(n, 64)) // grows as they come
	for range n {
		inc, err := d.Uint()
		if err != nil {
			return nil, err
		}
		incs = append(incs, crdt.Inc(inc))
	}
	return incs, nil
}

// takeUints fills the given numbers.
func takeUints(d *crdt.Decoder, into ...*uint64) error {
	for _, p := range into {
		u, err := d.Uint()
		if err != nil {
			return err
		}
		*p = u
	}
	return nil
}

// takeSummary takes a summary. more is as for take.
func takeSummary(d *crdt.Decoder, more *int) (s summary, err error) {
	if err = takeRoot(d, &s.root); err != nil {
		return s, err
	}
	if s.ask, err = d.Bool(); err != nil {
		return s, err
	}
	if s.wallMs, err = d.Uint(); err != nil || *more < cutFields {
		return s, err
	}
	*more -= cutFields
	var last uint64
	c := &cut{}
	if err = takeUints(d, &last); err == nil {
		err = takeRoot(d, &c.root)
	}
	c.last, s.cut = int64(min(last, math.MaxInt64)), c
	return s, err
}

func takeRoot(d *crdt.Decoder, r *reconcile.Root) error {
	return takeUints(d, &r.Data.Hash, &r.Data.Count, &r.Clock.Hash, &r.Clock.Count)
}

// takeEnvelope takes a session message. The payload is not a copy.
func takeEnvelope(d *crdt.Decoder) (env envelope, payload []byte, err error) {
	if err = takeUints(d, &env.link, &env.id, &env.number); err != nil {
		return env, nil, err
	}
	payload, err = d.Shared(maxPayload)
	return env, payload, err
}

// known is the least number of elements that follow the kind in messages of
// that kind, or -1.
func known(kind uint64) int {
	switch kind {
	case kindBehind:
		return 0
	case kindOp, kindBatch, kindIHave, kindGraft, kindPrune, kindChoke:
		return 1
	case kindHello, kindBusy, kindAbort, kindBeacon, kindAcks:
		return 2
	case kindSession:
		return 4
	case kindAsk:
		return 5
	case kindSummary:
		return 6
	}
	return -1
}
