package heartbeat

import (
	"encoding/binary"
	"errors"
)

// A Beat says who leads a group in a term.
type Beat struct {
	Term   uint64
	Leader string // the ID of the replica
	Addr   string // where its node accepts streams
}

// An Answer is what a replica says to a Beat.
type Answer struct {
	OK     bool   // it follows that leader
	Term   uint64 // that it knows of
	Last   uint64 // index of the last entry of its log
	Commit uint64 // index up to which it knows entries to be committed
}

// ErrMalformed: a message is not one of this protocol. Match with errors.Is.
var ErrMalformed = errors.New("malformed heartbeats")

const (
	version = 1
	// maxBeats is how many go with one message; more make several.
	maxBeats = 1024
	// maxText bounds each name and address.
	maxText = 1024
)

// Kinds of answers.
const (
	unanswered = iota
	refused
	accepted
)

// addressed is a Beat with its group.
type addressed struct {
	group string
	Beat
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// appendBeats encodes at most maxBeats.
func appendBeats(b []byte, beats []addressed) []byte {
	b = binary.AppendUvarint(append(b, version), uint64(len(beats)))
	var last Beat
	for _, a := range beats {
		b = appendText(b, a.group)
		b = binary.AppendUvarint(b, a.Term)
		b = appendRepeated(b, a.Leader, last.Leader)
		b = appendRepeated(b, a.Addr, last.Addr)
		last = a.Beat
	}
	return b
}

func appendRepeated(b []byte, s, last string) []byte {
	if s == last {
		return append(b, 0)
	}
	return append(binary.AppendUvarint(b, uint64(len(s))+1), s...)
}

// A decoder reads a message; bad is set by the first thing that is not in it.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) u8() byte {
	if len(d.b) == 0 {
		d.bad = true
		return 0
	}
	v := d.b[0]
	d.b = d.b[1:]
	return v
}

func (d *decoder) number() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.bad, d.b = true, nil
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) bytes(n uint64) string {
	if n > maxText || n > uint64(len(d.b)) {
		d.bad, d.b = true, nil
		return ""
	}
	s := string(d.b[:n])
	d.b = d.b[n:]
	return s
}

func (d *decoder) repeated(last string) string {
	n := d.number()
	if n == 0 {
		return last
	}
	return d.bytes(n - 1)
}

func decodeBeats(b []byte) ([]addressed, error) {
	d := decoder{b: b}
	if d.u8() != version {
		return nil, ErrMalformed
	}
	n := d.number()
	if d.bad || n > maxBeats || n > uint64(len(d.b)) {
		return nil, ErrMalformed
	}
	beats := make([]addressed, 0, n)
	var last Beat
	for range n {
		var a addressed
		a.group = d.bytes(d.number())
		a.Term = d.number()
		a.Leader = d.repeated(last.Leader)
		a.Addr = d.repeated(last.Addr)
		if d.bad {
			return nil, ErrMalformed
		}
		beats = append(beats, a)
		last = a.Beat
	}
	if len(d.b) != 0 {
		return nil, ErrMalformed
	}
	return beats, nil
}

// appendAnswer encodes the answer to one heartbeat, if there is one.
func appendAnswer(b []byte, a Answer, ok bool) []byte {
	if !ok {
		return append(b, unanswered)
	}
	kind := byte(refused)
	if a.OK {
		kind = accepted
	}
	b = binary.AppendUvarint(append(b, kind), a.Term)
	b = binary.AppendUvarint(b, a.Last)
	return binary.AppendUvarint(b, a.Commit)
}

// decodeAnswers decodes the answers to n heartbeats; nil stands for none.
func decodeAnswers(b []byte, n int) ([]*Answer, error) {
	d := decoder{b: b}
	if d.u8() != version {
		return nil, ErrMalformed
	}
	answers := make([]*Answer, n)
	for i := range answers {
		kind := d.u8()
		if kind == unanswered {
			continue
		}
		answers[i] = &Answer{OK: kind == accepted, Term: d.number(), Last: d.number(), Commit: d.number()}
		if kind > accepted {
			d.bad = true
		}
	}
	if d.bad || len(d.b) != 0 {
		return nil, ErrMalformed
	}
	return answers, nil
}
