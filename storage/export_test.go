package storage

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	bolt "go.etcd.io/bbolt"
)

// SetSegmentVersion makes a segment one of another format version, with a valid
// header.
func SetSegmentVersion(t *testing.T, path string, version uint32) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	h, ok := parseSegmentHeader(b)
	if !ok {
		t.Fatal("no header")
	}
	h.version = version
	copy(b, h.bytes())
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// MachineFiles is the default layer.
func MachineFiles() Files { return osFiles{} }

var errCut = errors.New("cut")

// CutCheckpoint runs a checkpoint that ends after n transactions of cells.
func CutCheckpoint(t *testing.T, s Store, n int) {
	t.Helper()
	if !TryCutCheckpoint(t, s, n) {
		t.Fatalf("the checkpoint has fewer than %d transactions", n)
	}
}

// TryCutCheckpoint is CutCheckpoint for a checkpoint that may have fewer than n
// transactions, and then runs to its end. It reports whether it was cut.
func TryCutCheckpoint(t *testing.T, s Store, n int) (cut bool) {
	t.Helper()
	c, err := s.(*disk).freeze()
	if err != nil {
		t.Fatal(err)
	}
	c.pause = func(context.Context) error {
		if n--; n == 0 {
			return errCut
		}
		return nil
	}
	err = c.run(context.Background())
	if err != nil && !errors.Is(err, errCut) {
		t.Fatal(err)
	}
	return err != nil
}

// BreakCellFile makes all later transactions of the bbolt file fail.
func BreakCellFile(t *testing.T, s Store) {
	t.Helper()
	d := s.(*disk)
	if err := d.db.Close(); err != nil {
		t.Fatal(err)
	}
}

// DamageCellFile overwrites pages of the open bbolt file, from page first up to
// page last, or to its end if last is below 0.
func DamageCellFile(t *testing.T, s Store, first, last int) {
	t.Helper()
	db := s.(*disk).db
	f, err := os.OpenFile(db.Path(), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	size := db.Info().PageSize
	if last < 0 {
		last = int(info.Size())/size - 1
	}
	junk := bytes.Repeat([]byte{0xA7}, (last-first+1)*size)
	_, err = f.WriteAt(junk, int64(first*size))
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

// Kick asks for a checkpoint now.
func Kick(s Store) { signal(s.(*disk).kick) }

// DeleteElement takes the first pair out of a bucket of keyspace ks, behind the
// store's back.
func DeleteElement(t *testing.T, dir, bucket string) {
	t.Helper()
	db, err := openCellFile(dir, false)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bolt.Tx) error {
		c := tx.Bucket(bucketKeyspaces).Bucket([]byte("ks")).Bucket([]byte(bucket)).Cursor()
		c.First()
		return c.Delete()
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
}

// RepageCellFile rewrites the bbolt file of a closed store with pages of size
// bytes.
func RepageCellFile(t *testing.T, dir string, size int) {
	t.Helper()
	src, err := openCellFile(dir, true)
	if err != nil {
		t.Fatal(err)
	}
	temp := filepath.Join(dir, newCellFileName)
	dst, err := bolt.Open(temp, 0o600, &bolt.Options{PageSize: size, NoFreelistSync: true, FreelistType: bolt.FreelistMapType})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(bolt.Compact(dst, src, 0), dst.Close(), src.Close(), os.Rename(temp, filepath.Join(dir, cellFileName))); err != nil {
		t.Fatal(err)
	}
}

// TreePages are the pages of the tree of a bucket of keyspace ks, level by level;
// the last level is the leaves.
func TreePages(t *testing.T, dir, bucket string) (levels [][]uint64, pageSize int) {
	t.Helper()
	db, err := openCellFile(dir, true)
	if err != nil {
		t.Fatal(err)
	}
	pageSize = db.Info().PageSize
	err = db.View(func(tx *bolt.Tx) error {
		b := tx.Bucket(bucketKeyspaces).Bucket([]byte("ks")).Bucket([]byte(bucket))
		levels = [][]uint64{{uint64(b.Root())}}
		return nil
	})
	data, readErr := os.ReadFile(filepath.Join(dir, cellFileName))
	if err := errors.Join(err, readErr, db.Close()); err != nil {
		t.Fatal(err)
	}
	c := pageCheck{data: data, pageSize: uint64(pageSize), seen: make([]atomic.Bool, len(data)/pageSize)}
	for {
		var below []uint64
		for _, id := range levels[len(levels)-1] {
			p, err := c.page(id)
			if err != nil {
				t.Fatal(err)
			}
			for i := 0; p.flags == branchPage && i < p.count; i++ {
				_, child, _ := p.branchElement(i)
				below = append(below, child)
			}
		}
		if below == nil {
			return levels, pageSize
		}
		levels = append(levels, below)
	}
}
