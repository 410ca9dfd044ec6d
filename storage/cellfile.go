package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/meshkv/meshkv/crdt"
	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// The layout of the bbolt file; docs/storage.md has it in full.
const (
	cellFileName    = "meshkv.db"
	newCellFileName = "meshkv.db.new"
)

var (
	bucketMeta      = []byte("meta")
	bucketKeyspaces = []byte("keyspaces")
	bucketCells     = []byte("cells")
	bucketClock     = []byte("clock")
	bucketPending   = []byte("pending")

	keyFormat   = []byte("format")
	keyPosition = []byte("position")
	keyTotals   = []byte("totals")
)

// A position says which part of the log the file stands for.
type position struct {
	nodeID    string
	next      uint64 // seq of the first record that must be replayed
	hlcBound  crdt.HLC
	keyspaces int
}

// totals let a reader notice that elements are missing, whatever the cause: for
// each of a keyspace's cells, clock and pending deaths their number and the
// wrapping sum of their hashes.
type totals struct{ cells, clock, pending total }

type total struct{ count, sum uint64 }

func (t *total) add(h uint64) { t.count, t.sum = t.count+1, t.sum+h }
func (t *total) sub(h uint64) { t.count, t.sum = t.count-1, t.sum-h }

// join adds what another part of the same elements gave.
func (t *total) join(o total) { t.count, t.sum = t.count+o.count, t.sum+o.sum }

// elementHash is of one stored pair; value begins with its checksum.
func elementHash(key, value []byte) uint64 {
	h := uint64(binary.LittleEndian.Uint32(value))
	for ; len(key) >= 8; key = key[8:] {
		h = (h ^ binary.BigEndian.Uint64(key)) * 0x9e3779b97f4a7c15
		h ^= h >> 32
	}
	return h * 0xff51afd7ed558ccd
}

func dotKey(b []byte, d crdt.Dot) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(d.Inc))
	return binary.BigEndian.AppendUint64(b, d.Seq)
}

func keyDot(k []byte) crdt.Dot {
	return crdt.Dot{Inc: crdt.Inc(binary.BigEndian.Uint64(k)), Seq: binary.BigEndian.Uint64(k[8:])}
}

func incKey(b []byte, inc crdt.Inc) []byte { return binary.BigEndian.AppendUint64(b, uint64(inc)) }

// A context of checksums: the same bytes at another place are not valid.
func checksumContext(keyspace string, bucket []byte) uint32 {
	return crc32.Update(checksum([]byte(keyspace)), castagnoli, bucket)
}

func elementChecksum(context uint32, key, body []byte) uint32 {
	return crc32.Update(crc32.Update(context, castagnoli, key), castagnoli, body)
}

// stamp completes value, whose first 4 bytes are room for the checksum.
func stamp(context uint32, key, value []byte) {
	binary.LittleEndian.PutUint32(value, elementChecksum(context, key, value[4:]))
}

// unstamp verifies value and returns its body.
func unstamp(context uint32, key, value []byte) (body []byte, ok bool) {
	if len(value) < 4 || binary.LittleEndian.Uint32(value) != elementChecksum(context, key, value[4:]) {
		return nil, false
	}
	return value[4:], true
}

// openCellFile opens the bbolt file. Read-only comes first: opening for writing
// walks all pages to find the free ones, and may crash the process if one of them
// is damaged. See checkPages.
func openCellFile(dir string, readOnly bool) (*bolt.DB, error) {
	path := filepath.Join(dir, cellFileName)
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() == 0 { // bbolt would begin a new file
		return nil, &DamageError{File: path, Reason: "the file is empty"}
	}
	var (
		db     *bolt.DB
		opened *os.File
	)
	err = guarded(path, func() (err error) {
		db, err = bolt.Open(path, 0o600, &bolt.Options{
			Timeout:        time.Second, // only the directory's lock keeps others out
			ReadOnly:       readOnly,
			NoFreelistSync: true,
			FreelistType:   bolt.FreelistMapType,
			NoStatistics:   true,
			OpenFile: func(name string, flag int, mode os.FileMode) (f *os.File, err error) {
				opened, err = os.OpenFile(name, flag, mode)
				return opened, err
			},
		})
		return err
	})
	if err == nil {
		return db, nil
	}
	if opened != nil { // after a panic it would be left open, and locked
		_ = syscall.Flock(int(opened.Fd()), syscall.LOCK_UN) // the mapping, which stays, holds the lock too
		_ = opened.Close()
	}
	if errors.Is(err, ErrDamaged) {
		return nil, err
	}
	for _, damage := range []error{bolterrors.ErrInvalid, bolterrors.ErrVersionMismatch, bolterrors.ErrChecksum} {
		if errors.Is(err, damage) {
			return nil, &DamageError{File: path, Reason: err.Error(), Cause: err}
		}
	}
	return nil, fmt.Errorf("open %s: %w", path, err)
}

// guarded runs fn, which reads mapped pages that may hold anything, and turns a
// panic or a memory fault into a DamageError.
func guarded(path string, fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = &DamageError{File: path, Reason: fmt.Sprintf("malformed page: %v", r)}
		}
	}()
	return fn()
}

// createCellFile makes the file of an empty store. It gets its name only when it
// is complete.
func createCellFile(dir, nodeID string, next uint64) error {
	temp := filepath.Join(dir, newCellFileName)
	if err := os.Remove(temp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	db, err := bolt.Open(temp, 0o600, &bolt.Options{NoFreelistSync: true, FreelistType: bolt.FreelistMapType})
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bolt.Tx) error {
		if _, err := tx.CreateBucket(bucketKeyspaces); err != nil {
			return err
		}
		meta, err := tx.CreateBucket(bucketMeta)
		if err != nil {
			return err
		}
		if err := meta.Put(keyFormat, binary.LittleEndian.AppendUint32(nil, formatVersion)); err != nil {
			return err
		}
		return putPosition(meta, position{nodeID: nodeID, next: next})
	})
	if err := errors.Join(err, db.Close()); err != nil {
		return err
	}
	if err := os.Rename(temp, filepath.Join(dir, cellFileName)); err != nil {
		return err
	}
	return syncDir(dir)
}

// putPosition stores [node id, next, hlc bound, keyspaces].
func putPosition(meta *bolt.Bucket, p position) error {
	e := crdt.NewEncoder()
	e.Reset(make([]byte, 4))
	e.ArrayLen(4)
	e.Str(p.nodeID)
	e.Uint(p.next)
	e.Uint(uint64(p.hlcBound))
	e.Uint(uint64(p.keyspaces))
	v := e.Bytes()
	stamp(checksumContext("", bucketMeta), keyPosition, v)
	return meta.Put(keyPosition, v)
}

func readPosition(tx *bolt.Tx) (p position, err error) {
	path := tx.DB().Path()
	damage := func(reason string) (position, error) {
		return position{}, &DamageError{File: path, Reason: reason}
	}
	meta := tx.Bucket(bucketMeta)
	if meta == nil {
		return damage("no meta bucket")
	}
	if f := meta.Get(keyFormat); len(f) != 4 {
		return damage("no format version")
	} else if v := binary.LittleEndian.Uint32(f); v != formatVersion {
		return position{}, &DamageError{File: path, Cause: ErrFormat,
			Reason: fmt.Sprintf("format version %d, known is %d", v, formatVersion)}
	}
	body, ok := unstamp(checksumContext("", bucketMeta), keyPosition, meta.Get(keyPosition))
	if !ok {
		return damage("position fails its checksum")
	}
	d := crdt.NewDecoder()
	d.Reset(body)
	if _, err := fields(d, 4); err != nil {
		return damage("malformed position")
	}
	var e1, e2, e3, e4 error
	var hlc, keyspaces uint64
	p.nodeID, e1 = d.Str(nodeIDBytes)
	p.next, e2 = d.Uint()
	hlc, e3 = d.Uint()
	keyspaces, e4 = d.Uint()
	if errors.Join(e1, e2, e3, e4) != nil {
		return damage("malformed position")
	}
	p.hlcBound, p.keyspaces = crdt.HLC(hlc), int(keyspaces)
	return p, nil
}

// putTotals stores the six numbers of t in the keyspace's bucket.
func putTotals(ks *bolt.Bucket, name string, t totals) error {
	v := make([]byte, 4, 4+6*8)
	for _, one := range []total{t.cells, t.clock, t.pending} {
		v = binary.LittleEndian.AppendUint64(v, one.count)
		v = binary.LittleEndian.AppendUint64(v, one.sum)
	}
	stamp(checksumContext(name, keyTotals), keyTotals, v)
	return ks.Put(keyTotals, v)
}

func readTotals(ks *bolt.Bucket, name string) (t totals, ok bool) {
	body, ok := unstamp(checksumContext(name, keyTotals), keyTotals, ks.Get(keyTotals))
	if !ok || len(body) < 6*8 {
		return t, false
	}
	for _, one := range []*total{&t.cells, &t.clock, &t.pending} {
		one.count = binary.LittleEndian.Uint64(body)
		one.sum = binary.LittleEndian.Uint64(body[8:])
		body = body[16:]
	}
	return t, true
}
