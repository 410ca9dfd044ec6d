package wire

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
)

const headerBytes = 4

// firstRead is the most that a frame's announced length makes ReadFrame
// allocate before bytes arrive.
const firstRead = 64 << 10

// ReadFrame reads one frame into buf's capacity, or a larger slice, and returns
// its payload. A length over limit is refused before anything is allocated; a
// length within it costs memory only as its bytes arrive. io.EOF means that the
// stream ended between frames.
func ReadFrame(r *bufio.Reader, buf []byte, limit int) ([]byte, error) {
	head, err := r.Peek(headerBytes)
	if err != nil {
		if err == io.EOF && len(head) > 0 {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	size := binary.BigEndian.Uint32(head)
	if size == 0 || uint64(size) > uint64(limit) {
		return nil, fmt.Errorf("%w: length %d, at most %d", ErrFrame, size, limit)
	}
	r.Discard(headerBytes) // they were peeked
	n := int(size)
	buf = buf[:0]
	for len(buf) < n {
		step := min(n-len(buf), cap(buf)-len(buf))
		if step == 0 {
			step = min(n-len(buf), max(firstRead, len(buf)))
			buf = append(make([]byte, 0, len(buf)+step), buf...)
		}
		at := len(buf)
		buf = buf[:at+step]
		if _, err := io.ReadFull(r, buf[at:]); err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
	return buf, nil
}

// openFrame starts a frame at the end of b, sealFrame sets its length once its
// payload was appended.
func openFrame(b []byte) ([]byte, int) { return append(b, 0, 0, 0, 0), len(b) }

func sealFrame(b []byte, at int) []byte {
	binary.BigEndian.PutUint32(b[at:], uint32(len(b)-at-headerBytes))
	return b
}
