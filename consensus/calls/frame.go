package calls

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"time"
)

type frameType uint8

const (
	frameVoid frameType = iota
	frameRequest
	frameCancel
	frameAnswer
	frameRefusal
	frameFailure
	frameOverload
	framePing
	framePong
)

const (
	lengthBytes = 4
	// headBytes is what all frames have after the length: type and call.
	headBytes = 1 + 8
	// requestBytes is what a request has beside group and body.
	requestBytes = headBytes + 8 + 1 + 1
	maxFrame     = requestBytes + MaxGroup + MaxBody
	// maxTimeout is the longest that a request can say: beyond it there is none.
	maxTimeout = math.MaxInt64 / int64(time.Microsecond)
	// readBuffer is what is read at once. Longer frames get memory of their own.
	readBuffer = 64 << 10
)

// A frame is what follows a length, taken apart. body, and group of a request, are part
// of what was decoded. Of a refusal, failure and overload the body is the detail.
type frame struct {
	kind    frameType
	call    uint64
	timeout time.Duration // 0: none
	ask     Kind
	code    uint8
	group   []byte
	body    []byte
}

// decode takes apart what follows a length. The error is ErrMalformed.
func decode(b []byte) (f frame, err error) {
	if len(b) < headBytes {
		return frame{}, ErrMalformed
	}
	f.kind, f.call = frameType(b[0]), binary.BigEndian.Uint64(b[1:])
	rest := b[headBytes:]
	switch f.kind {
	case frameRequest:
		if len(b) < requestBytes || len(b) < requestBytes+int(b[requestBytes-1]) {
			return frame{}, ErrMalformed
		}
		us := binary.BigEndian.Uint64(rest)
		if us > uint64(maxTimeout) {
			return frame{}, ErrMalformed
		}
		f.timeout, f.ask = time.Duration(us)*time.Microsecond, Kind(rest[8])
		end := requestBytes + int(b[requestBytes-1])
		f.group, f.body = b[requestBytes:end], b[end:]
	case frameRefusal:
		if len(rest) == 0 || len(rest) > 1+MaxDetail {
			return frame{}, ErrMalformed
		}
		f.code, f.body = rest[0], rest[1:]
	case frameVoid: // whatever was withdrawn
	case frameAnswer:
		f.body = rest
	case frameFailure:
		if f.body = rest; len(rest) > MaxDetail {
			return frame{}, ErrMalformed
		}
	case frameCancel, frameOverload, framePing, framePong:
		if len(rest) > 0 {
			return frame{}, ErrMalformed
		}
	default:
		return frame{}, ErrMalformed
	}
	if len(f.body) > MaxBody || (f.call == 0) != (f.kind == framePing || f.kind == framePong) {
		return frame{}, ErrMalformed
	}
	return f, nil
}

func appendHead(b []byte, rest int, t frameType, call uint64) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(headBytes+rest))
	b = append(b, byte(t))
	return binary.BigEndian.AppendUint64(b, call)
}

// appendRequest appends a request whose group and body are not too long.
func appendRequest(b []byte, call uint64, timeout time.Duration, group string, kind Kind, body []byte) []byte {
	us := uint64(0)
	if timeout > 0 {
		us = max(1, uint64(timeout/time.Microsecond))
	}
	b = appendHead(b, requestBytes-headBytes+len(group)+len(body), frameRequest, call)
	b = binary.BigEndian.AppendUint64(b, us)
	b = append(b, byte(kind), byte(len(group)))
	b = append(b, group...)
	return append(b, body...)
}

func appendRefusal(b []byte, call uint64, code uint8, detail string) []byte {
	detail = detail[:min(len(detail), MaxDetail)]
	b = append(appendHead(b, 1+len(detail), frameRefusal, call), code)
	return append(b, detail...)
}

func appendFailure(b []byte, call uint64, text string) []byte {
	text = text[:min(len(text), MaxDetail)]
	return append(appendHead(b, len(text), frameFailure, call), text...)
}

func appendAnswer(b []byte, call uint64, body []byte) []byte {
	return append(appendHead(b, len(body), frameAnswer, call), body...)
}

// A frameReader cuts a stream into frames.
type frameReader struct {
	in   *bufio.Reader
	used int // bytes in the buffer of in that the last frame took
}

func newFrameReader(in io.Reader) *frameReader {
	return &frameReader{in: bufio.NewReaderSize(in, readBuffer)}
}

// next is the next frame. If it is owned, its memory is the caller's; otherwise it is
// valid until the next call. A length costs memory only as its bytes arrive. io.EOF means
// that the stream ended between frames. Errors that are not of the stream match
// ErrMalformed.
func (r *frameReader) next() (f frame, owned bool, err error) {
	// What was peeked cannot fail to be discarded.
	_, _ = r.in.Discard(r.used)
	r.used = 0
	head, err := r.in.Peek(lengthBytes)
	if err != nil {
		if err == io.EOF && len(head) > 0 {
			err = io.ErrUnexpectedEOF
		}
		return frame{}, false, err
	}
	size := binary.BigEndian.Uint32(head)
	if size < headBytes || size > maxFrame {
		return frame{}, false, fmt.Errorf("%w: length %d", ErrMalformed, size)
	}
	n := int(size)
	var b []byte
	if lengthBytes+n <= readBuffer {
		if b, err = r.in.Peek(lengthBytes + n); err == nil {
			b, r.used = b[lengthBytes:], lengthBytes+n
		}
	} else {
		owned = true
		_, _ = r.in.Discard(lengthBytes)
		b, err = r.long(n)
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return frame{}, false, err
	}
	f, err = decode(b)
	return f, owned, err
}

// long reads n bytes into memory that doubles as they arrive.
func (r *frameReader) long(n int) ([]byte, error) {
	b := make([]byte, 0, min(n, 4*readBuffer))
	for len(b) < n {
		if len(b) == cap(b) {
			b = append(make([]byte, 0, min(n, 2*cap(b))), b...)
		}
		at := len(b)
		b = b[:cap(b)]
		if _, err := io.ReadFull(r.in, b[at:]); err != nil {
			return nil, err
		}
	}
	return b, nil
}
