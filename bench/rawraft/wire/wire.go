// Package wire is the protocol between rawraft and its clients: frames in both
// directions over one connection, any number of requests under way.
//
// A frame is its length (4 bytes, of what follows), the number of the request (8),
// an Op or a Status (1), the length of the key (2), the key and the value.
package wire

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
)

// An Op is what a request asks for.
type Op uint8

// The operations. Leader answers with the name of the leader as the value.
const (
	Put Op = iota + 1
	Get
	Leader
)

// A Status is how a request ended.
type Status uint8

// The statuses. NotLeader: nothing was done; the value is the name of the leader, or
// empty. Unknown: the write may have been done.
const (
	OK Status = iota + 1
	NotLeader
	NotFound
	Unknown
)

// header is the bytes of a frame before the key, its length excepted.
const header = 8 + 1 + 2

// maxFrame bounds a frame.
const maxFrame = 1 << 20

// A Frame is one request or answer.
type Frame struct {
	ID    uint64
	Code  uint8 // Op or Status
	Key   []byte
	Value []byte
}

// Write writes f. The caller flushes.
func Write(w *bufio.Writer, f Frame) error {
	var b [4 + header]byte
	binary.BigEndian.PutUint32(b[:], uint32(header+len(f.Key)+len(f.Value)))
	binary.BigEndian.PutUint64(b[4:], f.ID)
	b[12] = f.Code
	binary.BigEndian.PutUint16(b[13:], uint16(len(f.Key)))
	w.Write(b[:])
	w.Write(f.Key)
	_, err := w.Write(f.Value) // the first error of w stays
	return err
}

// Read reads a frame, which owns its bytes.
func Read(r *bufio.Reader) (Frame, error) {
	var b [4 + header]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return Frame{}, err
	}
	n, key := int(binary.BigEndian.Uint32(b[:])), int(binary.BigEndian.Uint16(b[13:]))
	if n > maxFrame || n < header+key {
		return Frame{}, fmt.Errorf("frame of %d bytes, key of %d", n, key)
	}
	body := make([]byte, n-header)
	if _, err := io.ReadFull(r, body); err != nil {
		return Frame{}, err
	}
	return Frame{ID: binary.BigEndian.Uint64(b[4:]), Code: b[12], Key: body[:key:key], Value: body[key:]}, nil
}
