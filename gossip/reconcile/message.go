package reconcile

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"github.com/meshkv/meshkv/crdt"
)

// A payload is the session's id followed by messages, each a kind and its
// fields. The initiator's sums, lists, answers and asks are queries: the
// responder works them off in order and says with kindEnd how many more it has
// finished. Everything that a query leads to, but for cells that are still to
// be wanted, is sent before its end.
const (
	kindOpen      = iota + 1 // version, roots, spans of D⁰ to follow
	kindAccept               // the same, by the responder
	kindPending              // some spans of D⁰
	kindClockSums            // prefix, sums of the 16 prefixes below
	kindClockList            // prefix, more, none, all entries under it
	kindClockDiff            // prefix, more, mask of the listed entries that do not exist here, entries that differ
	kindDataSums             // prefix, sums of the 16 prefixes below
	kindDataList             // prefix, the dots of all cells under it
	kindAnswer               // prefix, masks of its listed dots: not in S⁰ here; to be sent
	kindAsk                  // prefix: list yours
	kindOffer                // dots of cells that the receiver's clock lacks
	kindWant                 // mask of the oldest unanswered offer: to be sent
	kindCell                 // one cell
	kindAck                  // bytes of cells received
	kindEnd                  // queries finished
	kindNothing              // the sender goes on working
	kindDone                 // by the initiator: all is sent and received
	kindAbort                // the sender has dropped the session
)

const (
	version = 1

	dataListMax  = 24         // dots of a list: more are cheaper by sums
	deepListMax  = 4096       // dots of a list of one single place
	offerMax     = 256        // dots of one offer
	spansMax     = 1 << 10    // spans of one kindPending
	pendingMax   = 1 << 20    // dots of a peer's D⁰
	clockMax     = 1 << 20    // entries of a peer's clock, and pieces received
	countSat     = 0xff       // counts in sums say no more than "at least so many"
	sumsBytes    = 2 + 9*16   // of 16 sums, at most
	headerBytes  = 32         // of any message before its content, at most
	dotBytes     = 8 + 1 + 10 // of one dot in a list, at most
	reserveBytes = 16         // kept free in a payload for kindEnd
)

func violated(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrProtocol, fmt.Sprintf(format, args...))
}

// AppendAbort appends a payload that ends session id at the peer.
func AppendAbort(buf []byte, id uint64) []byte {
	e := crdt.NewEncoder()
	e.Reset(buf)
	e.Uint(id)
	e.Uint(kindAbort)
	return e.Bytes()
}

// Peek is the session that a payload belongs to, and whether the payload opens
// it. A payload that does not open a session and belongs to none that is known
// is answered with AppendAbort, unless Aborts.
func Peek(payload []byte) (id uint64, opens bool, err error) {
	id, kind, err := peek(payload)
	return id, kind == kindOpen, err
}

// Aborts reports whether payload ends its session.
func Aborts(payload []byte) bool {
	_, kind, err := peek(payload)
	return err == nil && kind == kindAbort
}

func peek(payload []byte) (id, kind uint64, err error) {
	d := crdt.NewDecoder()
	d.Reset(payload)
	if id, err = d.Uint(); err == nil {
		kind, err = d.Uint()
	}
	return id, kind, err
}

// sat is a count as sums on the wire tell it.
func sat(count uint64) uint64 { return min(count, countSat) }

// same compares a sum with one that may have come over the wire.
func same(a, b Sum) bool { return a.Hash == b.Hash && sat(a.Count) == sat(b.Count) }

func putPrefix(e *crdt.Encoder, p prefix) {
	e.Uint(uint64(p.depth))
	if p.depth > 0 {
		e.Uint(p.bits >> shift(p.depth))
	}
}

func takePrefix(d *crdt.Decoder) (prefix, error) {
	depth, err := d.Uint()
	if err != nil || depth == 0 {
		return prefix{}, err
	}
	bits, err := d.Uint()
	if err != nil {
		return prefix{}, err
	}
	if depth > maxDepth || depth < maxDepth && bits>>(4*depth) != 0 {
		return prefix{}, violated("prefix")
	}
	return prefix{bits << shift(uint8(depth)), uint8(depth)}, nil
}

// appendSums appends a mask of the sums that are not empty, and those.
func appendSums(b []byte, sums *[fanout]Sum) []byte {
	at := len(b)
	b = append(b, 0, 0)
	var mask uint16
	for i, s := range sums {
		if s.Count > 0 {
			mask |= 1 << i
			b = binary.BigEndian.AppendUint64(b, s.Hash)
			b = append(b, byte(sat(s.Count)))
		}
	}
	binary.BigEndian.PutUint16(b[at:], mask)
	return b
}

func parseSums(b []byte) (sums [fanout]Sum, err error) {
	if len(b) < 2 {
		return sums, violated("sums")
	}
	mask := binary.BigEndian.Uint16(b)
	b = b[2:]
	for i := range sums {
		if mask>>i&1 == 0 {
			continue
		}
		if len(b) < 9 || b[8] == 0 {
			return sums, violated("sums")
		}
		sums[i] = Sum{binary.BigEndian.Uint64(b), uint64(b[8])}
		b = b[9:]
	}
	if len(b) != 0 {
		return sums, violated("sums")
	}
	return sums, nil
}

// appendDots appends ascending dots: for each incarnation its 8 bytes, their
// number, and the differences of their sequence numbers.
func appendDots(b []byte, dots []crdt.Dot) []byte {
	for len(dots) > 0 {
		n := 1
		for n < len(dots) && dots[n].Inc == dots[0].Inc {
			n++
		}
		b = binary.BigEndian.AppendUint64(b, uint64(dots[0].Inc))
		b = binary.AppendUvarint(b, uint64(n))
		last := uint64(0)
		for _, d := range dots[:n] {
			b = binary.AppendUvarint(b, d.Seq-last)
			last = d.Seq
		}
		dots = dots[n:]
	}
	return b
}

func parseDots(b []byte, limit int) ([]crdt.Dot, error) {
	var dots []crdt.Dot
	last := crdt.Inc(0)
	for len(b) > 0 {
		if len(b) < 10 {
			return nil, violated("dots")
		}
		inc := crdt.Inc(binary.BigEndian.Uint64(b))
		n, k := binary.Uvarint(b[8:])
		if k <= 0 || n == 0 || n > uint64(limit-len(dots)) || n > uint64(len(b)-8-k) || inc <= last {
			return nil, violated("dots")
		}
		last, b = inc, b[8+k:]
		seq := uint64(0)
		dots = slices.Grow(dots, int(n))
		for range n {
			more, k := binary.Uvarint(b)
			if k <= 0 || more == 0 || more > math.MaxUint64-seq {
				return nil, violated("dots")
			}
			seq, b = seq+more, b[k:]
			dots = append(dots, crdt.Dot{Inc: inc, Seq: seq})
		}
	}
	return dots, nil
}

// A mask has one bit for each value of a list.
type mask []byte

func newMask(n int) mask       { return make(mask, (n+7)/8) }
func (m mask) set(i int)       { m[i/8] |= 1 << (i % 8) }
func (m mask) has(i int) bool  { return m[i/8]>>(i%8)&1 != 0 }
func (m mask) fits(n int) bool { return len(m) == (n+7)/8 }
func takeMask(d *crdt.Decoder, most int) (mask, error) {
	b, err := d.Bin((most + 7) / 8)
	return b, err
}

// cellBytes is about what a cell takes, and never less.
func cellBytes(c *crdt.Cell) int { return 96 + len(c.Key) + len(c.Path) + len(c.Value) }

// A piece is an entry, or some of its islands: entries are unions of their
// pieces, so that one of any size can be sent.
type piece struct {
	inc   crdt.Inc
	entry crdt.Entry
}

func pieceBytes(p piece) int { return 32 + 18*len(p.entry.Islands) }

func appendPieces(out []piece, inc crdt.Inc, e crdt.Entry, most int) []piece {
	for len(e.Islands) > most {
		out = append(out, piece{inc, crdt.Entry{Prefix: e.Prefix, Closed: e.Closed, Sealed: e.Sealed, Islands: e.Islands[:most]}})
		e.Prefix, e.Islands = 0, e.Islands[most:]
	}
	return append(out, piece{inc, e})
}
