package logstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/meshkv/meshkv/storage"
)

const (
	formatVersion = 1
	segmentMagic  = "mkvraft\n"
	// The head of a segment: magic, format version u32, number u32, number of
	// the store u64, size of the file u64, checksum u32. It has a page of its own,
	// which is never written again.
	segmentHeadBytes = 8 + 4 + 4 + 8 + 8 + 4
	segmentHead      = 4096

	segmentSuffix = ".seg"
	tempSuffix    = ".new"

	// defaultSegmentBytes is the size of a segment, unless a commit needs a
	// larger one. The first of a store is smaller, and each at most segmentGrowth
	// times as large as the one before: a node that stores little takes little.
	defaultSegmentBytes = 16 << 20
	firstSegmentBytes   = 1 << 20
	segmentGrowth       = 4
	// maxSegmentBytes bounds what is taken for a segment: all groups with all
	// their stable values, and the largest commit, fit in it.
	maxSegmentBytes = 512 << 20
	// pieceBytes is how much is read or filled at once, so that commits get
	// their turns at the disk.
	pieceBytes = 1 << 20
	// sealBytes are kept free for the frame that ends a segment.
	sealBytes = 2 * 32
)

// A segment is one file of the journal. It has its full size from the start, filled
// with zeros: an fdatasync then writes nothing but the bytes of the commit.
type segment struct {
	number uint32
	path   string
	file   *os.File
	size   int64
	used   int64        // up to the end of the last frame; the writer's, until there is a later segment
	frame  int64        // where the last frame begins; set by the replay
	torn   bool         // there is something behind the last frame; likewise
	base   atomic.Int64 // bytes of the state at its beginning, 0 if unused
	live   atomic.Int64 // bytes of the entries whose place is here
}

// unused: it has no frame yet.
func (seg *segment) unused() bool { return seg.used == segmentHead }

// fits: there is room for a frame of n bytes, and a seal behind it.
func (seg *segment) fits(n int64) bool { return seg.used+align(n, frameAlign)+sealBytes <= seg.size }

func segmentPath(dir string, number uint32) string {
	return filepath.Join(dir, fmt.Sprintf("%08x%s", number, segmentSuffix))
}

// createSegment makes an empty segment, durably, in the place of an unused one if
// there is one. It gets its name only when it is complete, and sync has brought it
// to disk.
func createSegment(dir string, store uint64, number uint32, size int64, sync func(*os.File) error) (_ *segment, err error) {
	path := segmentPath(dir, number)
	temp := path + tempSuffix
	f, err := os.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	head := append(make([]byte, 0, segmentHeadBytes), segmentMagic...)
	head = binary.LittleEndian.AppendUint32(head, formatVersion)
	head = binary.LittleEndian.AppendUint32(head, number)
	head = binary.LittleEndian.AppendUint64(head, store)
	head = binary.LittleEndian.AppendUint64(head, uint64(size))
	head = binary.LittleEndian.AppendUint32(head, crc32.Checksum(head, castagnoli))
	piece := make([]byte, min(size, pieceBytes))
	copy(piece, head)
	for at := int64(0); at < size; at += int64(len(piece)) {
		piece = piece[:min(size-at, int64(len(piece)))]
		if _, err := f.WriteAt(piece, at); err != nil {
			return nil, err
		}
		if err := sync(f); err != nil {
			return nil, err
		}
		clear(piece[:min(len(head), len(piece))])
	}
	if err := os.Rename(temp, path); err != nil {
		return nil, err
	}
	if err := syncDir(dir); err != nil {
		return nil, err
	}
	return &segment{number: number, path: path, file: f, size: size, used: segmentHead, frame: segmentHead}, nil
}

// openSegment opens the segment with that number, and verifies its head.
func openSegment(dir string, number uint32) (seg *segment, store uint64, err error) {
	path := segmentPath(dir, number)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, 0, err
	}
	seg = &segment{number: number, path: path, file: f, used: segmentHead, frame: segmentHead}
	store, err = seg.readHead()
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return seg, store, nil
}

func (seg *segment) readHead() (store uint64, err error) {
	info, err := seg.file.Stat()
	if err != nil {
		return 0, err
	}
	if info.Size() < segmentHead || info.Size() > maxSegmentBytes {
		return 0, seg.damage("it has %d bytes", info.Size())
	}
	var head [segmentHeadBytes]byte
	if _, err := seg.file.ReadAt(head[:], 0); err != nil {
		return 0, err
	}
	body, sum := head[:segmentHeadBytes-checksumBytes], head[segmentHeadBytes-checksumBytes:]
	if string(body[:8]) != segmentMagic || crc32.Checksum(body, castagnoli) != binary.LittleEndian.Uint32(sum) {
		return 0, seg.damage("its head fails its checksum")
	}
	if v := binary.LittleEndian.Uint32(body[8:]); v != formatVersion {
		return 0, &storage.DamageError{File: seg.path, Cause: storage.ErrFormat,
			Reason: fmt.Sprintf("format version %d, known is %d", v, formatVersion)}
	}
	if n := binary.LittleEndian.Uint32(body[12:]); n != seg.number {
		return 0, seg.damage("it is segment %d", n)
	}
	if size := binary.LittleEndian.Uint64(body[24:]); size != uint64(info.Size()) {
		return 0, seg.damage("it has %d bytes of %d", info.Size(), size)
	}
	seg.size = info.Size()
	return binary.LittleEndian.Uint64(body[16:]), nil
}

// read returns the first n bytes, in image if it is large enough.
func (seg *segment) read(image []byte, n int64) ([]byte, error) {
	if int64(cap(image)) < n {
		image = make([]byte, n)
	}
	image = image[:n]
	for at := int64(0); at < n; at += pieceBytes {
		if _, err := seg.file.ReadAt(image[at:min(at+pieceBytes, n)], at); err != nil {
			return nil, err
		}
	}
	return image, nil
}

// clear writes zeros behind the last frame, where there are others.
func (seg *segment) clear() error {
	for at := seg.used; at < seg.size; at += pieceBytes {
		piece := make([]byte, min(pieceBytes, seg.size-at))
		if _, err := seg.file.ReadAt(piece, at); err != nil {
			return err
		}
		if zeros(piece) == int64(len(piece)) {
			continue
		}
		clear(piece)
		if _, err := seg.file.WriteAt(piece, at); err != nil {
			return err
		}
	}
	return nil
}

// damage is the error for what failed verification.
func (seg *segment) damage(format string, args ...any) error {
	return &storage.DamageError{File: seg.path, Reason: fmt.Sprintf(format, args...)}
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
