package storage

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/meshkv/meshkv/crdt"
)

const (
	segmentPrefix = "wal-"
	segmentSuffix = ".log"
)

func segmentPath(dir string, first uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%s%016x%s", segmentPrefix, first, segmentSuffix))
}

// listSegments are the first sequence numbers of the segments in dir, ascending.
func listSegments(dir string) ([]uint64, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var firsts []uint64
	for _, e := range entries {
		hex, ok := strings.CutPrefix(e.Name(), segmentPrefix)
		if !ok {
			continue
		}
		if hex, ok = strings.CutSuffix(hex, segmentSuffix); !ok || len(hex) != 16 {
			continue
		}
		first, err := strconv.ParseUint(hex, 16, 64)
		if err != nil {
			continue
		}
		firsts = append(firsts, first)
	}
	slices.Sort(firsts)
	return firsts, nil
}

// oplog is the log while it is written: a chain of segments of which the last
// one grows. Not safe for concurrent use.
type oplog struct {
	dir      string
	nodeID   string
	files    Files
	segments []segment // ascending; the last one is open
	file     File      // of the last segment
	next     uint64    // seq of the next record
	enc      *crdt.Encoder
	buf      []byte
}

type segment struct {
	path  string
	first uint64
	size  int64
}

// maxKeptBuffer is the largest buffer that is kept from one commit to the next.
const maxKeptBuffer = 32 << 20

// begin starts a new last segment with the next record. The one before, if any,
// is sealed: from then on the new one may not be missing.
func (l *oplog) begin() error {
	path := segmentPath(l.dir, l.next)
	f, err := l.files.Create(path)
	if err != nil {
		return err
	}
	if err := l.found(f); err != nil {
		return errors.Join(err, f.Close())
	}
	if l.file != nil {
		seal := sealRecord(make([]byte, recordHeaderSize), recordSeal, l.next)
		if err := l.write(seal); err != nil {
			return errors.Join(err, f.Close())
		}
		if err := l.file.Close(); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	l.file = f
	l.segments = append(l.segments, segment{path: path, first: l.next, size: segmentHeaderSize})
	return nil
}

// found makes the new segment f durable.
func (l *oplog) found(f File) error {
	header := segmentHeader{version: formatVersion, nodeID: l.nodeID, first: l.next}.bytes()
	if _, err := f.Write(header); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return l.files.SyncDir(l.dir)
}

// append writes b as the next record and returns its size when it is on disk.
func (l *oplog) append(b *Batch) (int64, error) {
	if l.enc == nil {
		l.enc = crdt.NewEncoder()
	}
	l.enc.Reset(append(l.buf[:0], make([]byte, recordHeaderSize)...))
	encodeBatch(l.enc, b)
	l.buf = l.enc.Bytes()
	if len(l.buf) > maxRecordBytes {
		n := len(l.buf)
		l.buf = nil
		return 0, fmt.Errorf("%w: %d bytes", ErrInvalid, n)
	}
	l.buf = sealRecord(l.buf, recordBatch, l.next)
	n := int64(len(l.buf))
	err := l.write(l.buf)
	if cap(l.buf) > maxKeptBuffer {
		l.buf = nil
	}
	if err != nil {
		return 0, err
	}
	l.next++
	return n, nil
}

func (l *oplog) write(record []byte) error {
	if _, err := l.file.Write(record); err != nil {
		return err
	}
	l.segments[len(l.segments)-1].size += int64(len(record))
	return l.file.Sync()
}

// size is the bytes of all segments.
func (l *oplog) size() (n int64) {
	for _, s := range l.segments {
		n += s.size
	}
	return n
}

// empty reports whether a load would find nothing to replay.
func (l *oplog) empty() bool { return l.next == l.segments[0].first }

// release takes the segments before the record with that seq, which begins a
// segment, off the chain and returns their paths.
func (l *oplog) release(seq uint64) (paths []string) {
	for len(l.segments) > 1 && l.segments[0].first < seq {
		paths = append(paths, l.segments[0].path)
		l.segments = l.segments[1:]
	}
	return paths
}

func (l *oplog) close() error {
	if l.file == nil {
		return nil
	}
	err := l.file.Close()
	l.file = nil
	return err
}

// scanned is what a scan found in one segment.
type scanned struct {
	header segmentHeader
	next   uint64 // seq after the last valid record
	end    int64  // offset after the last valid record
	torn   bool   // an unfinished record follows
	sealed bool
	blank  bool // not even the header was completed
}

// scan reads a segment from its beginning and hands the payload of each batch to
// visit, which owns it. Anything that is neither valid nor a torn tail is a
// DamageError.
func scan(f File, path string, visit func(seq uint64, payload []byte) error) (s scanned, err error) {
	damage := func(format string, args ...any) (scanned, error) {
		return s, &DamageError{File: path, Reason: fmt.Sprintf(format, args...)}
	}
	size, err := f.Size()
	if err != nil {
		return s, err
	}
	r := bufio.NewReaderSize(io.NewSectionReader(f, 0, size), 1<<20)
	head := make([]byte, segmentHeaderSize)
	n, err := io.ReadFull(r, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return s, err
	}
	var ok bool
	if s.header, ok = parseSegmentHeader(head[:n]); !ok {
		if n < segmentHeaderSize || allZero(head) {
			s.blank = true
			return s, nil
		}
		return damage("segment header fails its checksum")
	}
	if s.header.version != formatVersion {
		return s, &DamageError{File: path, Cause: ErrFormat,
			Reason: fmt.Sprintf("format version %d, known is %d", s.header.version, formatVersion)}
	}
	s.next, s.end = s.header.first, segmentHeaderSize
	for s.end < size {
		if s.sealed {
			return damage("data after the end of the segment, at offset %d", s.end)
		}
		h, payload, err := readRecord(r, size-s.end)
		if err != nil {
			return s, err
		}
		if payload == nil || h.seq != s.next {
			rest := make([]byte, size-s.end)
			if _, err := f.ReadAt(rest, s.end); err != nil && !errors.Is(err, io.EOF) {
				return s, err
			}
			torn, reason := tornTail(rest, s.end, s.next)
			if !torn {
				return damage("%s, at offset %d", reason, s.end)
			}
			s.torn = true
			return s, nil
		}
		switch {
		case h.kind == recordSeal && h.length == 0:
			s.sealed = true
		case h.kind == recordBatch:
			mask(payload, h.seq)
			if err := visit(h.seq, payload); err != nil {
				return s, err
			}
			s.next++
		default:
			return damage("record of unknown kind %d, at offset %d", h.kind, s.end)
		}
		s.end += h.size()
	}
	return s, nil
}

// readRecord takes one record off r, of which left bytes remain. The payload is
// nil if it is not valid.
func readRecord(r *bufio.Reader, left int64) (h recordHeader, payload []byte, err error) {
	if left < recordHeaderSize {
		return h, nil, nil
	}
	head, err := r.Peek(recordHeaderSize)
	if err != nil {
		return h, nil, err
	}
	h, ok := parseRecordHeader(head)
	if !ok || h.size() > left {
		return h, nil, nil
	}
	if _, err := r.Discard(recordHeaderSize); err != nil {
		return h, nil, err
	}
	b := make([]byte, h.length+1)
	if _, err := io.ReadFull(r, b); err != nil {
		return h, nil, err
	}
	payload = b[:h.length]
	if b[h.length] != recordTrailer || checksum(payload) != h.crc {
		return h, nil, nil
	}
	return h, payload, nil
}

func allZero(b []byte) bool {
	for _, x := range b {
		if x != 0 {
			return false
		}
	}
	return true
}
