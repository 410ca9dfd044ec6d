package logstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"time"

	"github.com/hashicorp/raft"
	"github.com/meshkv/meshkv/storage"
	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

const formatVersion = 1

var (
	bucketMeta    = []byte("meta")
	bucketGroups  = []byte("groups")
	bucketLogs    = []byte("logs")
	bucketRemoved = []byte("removed")

	keyFormat = []byte("format")
	keyNext   = []byte("next")
)

// found is what a verified file holds.
type found struct {
	tx      int // the transaction that wrote it last
	groups  map[string]record
	removed []uint32
}

func numberKey(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }

func putNext(meta *bolt.Bucket, number uint32) error {
	v := binary.LittleEndian.AppendUint32(make([]byte, checksumBytes, checksumBytes+4), number)
	binary.LittleEndian.PutUint32(v, checksum(keyNext, v[checksumBytes:]))
	return meta.Put(keyNext, v)
}

func readNext(meta *bolt.Bucket) (uint32, error) {
	body, ok := unstamp(keyNext, meta.Get(keyNext))
	if !ok || len(body) != 4 {
		return 0, errors.New("the number of the next group fails its checksum")
	}
	return binary.LittleEndian.Uint32(body), nil
}

// options of the file. Freed pages are not synced: after the deletion of many
// entries their list would be rewritten with every commit.
func options() *bolt.Options {
	return &bolt.Options{
		Timeout:        time.Second,
		NoFreelistSync: true,
		FreelistType:   bolt.FreelistMapType,
		NoStatistics:   true,
	}
}

// create makes the file of an empty store if there is none. It gets its name only
// when it is complete, and that durably.
func create(path string) error {
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	temp := path + ".new"
	if err := os.Remove(temp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	db, err := bolt.Open(temp, 0o600, options())
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bolt.Tx) error {
		for _, name := range [][]byte{bucketMeta, bucketGroups, bucketLogs, bucketRemoved} {
			if _, err := tx.CreateBucket(name); err != nil {
				return err
			}
		}
		meta := tx.Bucket(bucketMeta)
		if err := putNext(meta, 1); err != nil {
			return err
		}
		return meta.Put(keyFormat, binary.LittleEndian.AppendUint32(nil, formatVersion))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// openVerified opens the file for writing, if it is still what was verified.
func openVerified(path string, f found) (*bolt.DB, error) {
	db, err := bolt.Open(path, 0o600, options())
	if err != nil {
		return nil, openError(path, err)
	}
	err = db.View(func(tx *bolt.Tx) error {
		if tx.ID() != f.tx {
			return fmt.Errorf("%s was changed while it was opened: %w", path, storage.ErrLocked)
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

func openError(path string, err error) error {
	if errors.Is(err, bolterrors.ErrTimeout) {
		return fmt.Errorf("%s is %w", path, storage.ErrLocked)
	}
	for _, damage := range []error{bolterrors.ErrInvalid, bolterrors.ErrVersionMismatch, bolterrors.ErrChecksum} {
		if errors.Is(err, damage) {
			return &storage.DamageError{File: path, Reason: err.Error(), Cause: err}
		}
	}
	return fmt.Errorf("open %s: %w", path, err)
}

// verify reads all of the file at path. It is opened read-only for that: opening
// it for writing walks all pages in a goroutine of bbolt, where a panic over a
// damaged one cannot be caught.
func verify(path string) (f found, err error) {
	if info, err := os.Stat(path); err != nil {
		return f, err
	} else if info.Size() == 0 { // bbolt would begin a new file
		return f, &storage.DamageError{File: path, Reason: "the file is empty"}
	}
	o := options()
	o.ReadOnly = true
	var db *bolt.DB
	if err := guarded(path, func() (err error) {
		db, err = bolt.Open(path, 0o600, o)
		return err
	}); err != nil {
		return f, openError(path, err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := checkMetas(path, db.Info().PageSize); err != nil {
		return f, err
	}
	err = guarded(path, func() error {
		return db.View(func(tx *bolt.Tx) (err error) {
			f, err = read(tx)
			return err
		})
	})
	return f, err
}

// checkMetas verifies both of bbolt's meta pages (magic u32, ..., FNV-1a u64 of the
// 56 bytes before, from byte 16 of pages 0 and 1). If one is damaged, bbolt goes
// on from the other, which is one commit older: a vote could be forgotten. A
// crash does not tear them, since each is within one sector.
func checkMetas(path string, pageSize int) error {
	const (
		header = 16
		summed = 56
	)
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	for n := range 2 {
		var b [summed + 8]byte
		if _, err := file.ReadAt(b[:], int64(n*pageSize+header)); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		h := fnv.New64a()
		_, _ = h.Write(b[:summed]) // never fails
		if binary.NativeEndian.Uint64(b[summed:]) != h.Sum64() {
			return &storage.DamageError{File: path, Reason: fmt.Sprintf("meta page %d fails its checksum", n)}
		}
	}
	return nil
}

// read verifies what tx holds: every record, and of every group exactly the
// entries that its record names.
func read(tx *bolt.Tx) (found, error) {
	damage := func(format string, args ...any) (found, error) {
		return found{}, &storage.DamageError{File: tx.DB().Path(), Reason: fmt.Sprintf(format, args...)}
	}
	f := found{tx: tx.ID(), groups: make(map[string]record)}
	meta, groups, logs, removed := tx.Bucket(bucketMeta), tx.Bucket(bucketGroups), tx.Bucket(bucketLogs), tx.Bucket(bucketRemoved)
	if meta == nil || groups == nil || logs == nil || removed == nil {
		return damage("a bucket is missing")
	}
	if v := meta.Get(keyFormat); len(v) != 4 {
		return damage("no format version")
	} else if v := binary.LittleEndian.Uint32(v); v != formatVersion {
		return found{}, &storage.DamageError{File: tx.DB().Path(), Cause: storage.ErrFormat,
			Reason: fmt.Sprintf("format version %d, known is %d", v, formatVersion)}
	}
	next, err := readNext(meta)
	if err != nil {
		return damage("%v", err)
	}

	names := make(map[uint32]string) // "" for a removed one
	for c, k, v := first(groups); k != nil; k, v = c.Next() {
		r, err := decodeRecord(string(k), v)
		if err != nil {
			return damage("record of a group %v", err)
		}
		if _, twice := names[r.number]; twice || r.number >= next {
			return damage("group number %d", r.number)
		}
		names[r.number], f.groups[string(k)] = string(k), r
	}
	for c, k, _ := first(removed); k != nil; k, _ = c.Next() {
		if len(k) != 4 {
			return damage("number of a removed group of %d bytes", len(k))
		}
		number := binary.BigEndian.Uint32(k)
		if _, twice := names[number]; twice || number >= next {
			return damage("group number %d is removed", number)
		}
		names[number] = ""
		f.removed = append(f.removed, number)
	}

	seen := make(map[uint32]span)
	var log raft.Log
	for c, k, v := first(logs); k != nil; k, v = c.Next() {
		id, ok := keyID(k)
		name, known := names[id.group]
		if !ok || !known {
			return damage("entry of no group")
		}
		if name == "" {
			continue
		}
		if err := decodeEntry(id, v, &log); err != nil {
			return damage("group %q: entry %d %v", name, id.index, err)
		}
		s := seen[id.group]
		if s.last != 0 && id.index != s.last+1 {
			return damage("group %q: entry %d after %d", name, id.index, s.last)
		}
		if s.first == 0 {
			s.first = id.index
		}
		s.last = id.index
		seen[id.group] = s
	}
	for name, r := range f.groups {
		if s := seen[r.number]; s != r.held {
			return damage("group %q: entries %d to %d, not %d to %d", name, s.first, s.last, r.held.first, r.held.last)
		}
	}
	slices.Sort(f.removed)
	return f, nil
}

// first begins a walk over b.
func first(b *bolt.Bucket) (c *bolt.Cursor, k, v []byte) {
	c = b.Cursor()
	k, v = c.First()
	return c, k, v
}

// guarded runs fn, which reads mapped pages that may hold anything, and turns a
// panic or a memory fault into a DamageError.
func guarded(path string, fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = &storage.DamageError{File: path, Reason: fmt.Sprintf("malformed page: %v", r)}
		}
	}()
	return fn()
}
