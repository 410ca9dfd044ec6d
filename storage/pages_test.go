package storage_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/meshkv/meshkv/crdt"
	"github.com/meshkv/meshkv/storage"
	"github.com/meshkv/meshkv/storage/storagetest"
)

// A forest is a closed store whose cells fill a tree with two levels of branches,
// in small pages.
type forest struct {
	dir, path string
	file      []byte // as it was written
	model     *storagetest.Model
	pageSize  int
	root      uint64   // of the cells
	branches  []uint64 // the level below, in order of their keys
	leaves    []uint64
}

const forestCells = 140

func newForest(t *testing.T) *forest {
	t.Helper()
	f := &forest{dir: fastDir(t), model: storagetest.NewModel()}
	f.path = filepath.Join(f.dir, "meshkv.db")
	b := storage.KeyspaceBatch{
		Name:       "ks",
		Clock:      []storage.ClockEntry{{Inc: 1, Entry: crdt.Entry{Prefix: 2 * forestCells}}},
		PendingAdd: []crdt.Dot{{Inc: 1, Seq: 1}},
	}
	for n := range uint64(forestCells) { // room between the keys
		b.Put = append(b.Put, storagetest.Cell(1, 2*n+2, fmt.Sprint("k", n), "a value"))
	}
	batch := storage.Batch{HLCBound: 1, Keyspaces: []storage.KeyspaceBatch{b}}
	s := mustOpen(t, f.dir, &storage.Options{CheckpointIdle: time.Millisecond})
	mustLoad(t, s)
	if err := s.Commit(context.Background(), batch); err != nil {
		t.Fatal(err)
	}
	waitCheckpoints(t, s, 1)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	f.model.Apply(batch)
	storage.RepageCellFile(t, f.dir, 512)
	f.file = readFile(t, f.path)
	levels, pageSize := storage.TreePages(t, f.dir, "cells")
	if len(levels) != 3 || len(levels[1]) < 2 {
		t.Fatalf("levels of pages are %v, want a root, branches and leaves", levels)
	}
	f.pageSize, f.root, f.branches, f.leaves = pageSize, levels[0][0], levels[1], levels[2]
	return f
}

// load opens the store with another file of cells: damage is found, or the state
// is as it was.
func (f *forest) load(t *testing.T, file []byte) (harmless bool, err error) {
	t.Helper()
	writeFile(t, f.path, file)
	st, err := loadDir(t, f.dir)
	if errors.Is(err, storage.ErrDamaged) {
		return false, err
	}
	if err == nil {
		err = f.model.Check(st)
	}
	if err != nil {
		t.Fatalf("got %v, want ErrDamaged or the same state", err)
	}
	return true, nil
}

// used is how many bytes of page id are in use.
func (f *forest) used(id uint64) int {
	b := f.file[int(id)*f.pageSize:][:f.pageSize]
	n := len(b)
	for n > 0 && b[n-1] == 0 {
		n--
	}
	return n
}

// Every bit of the branch pages is damage when it flips: bbolt, which walks them
// when it opens the file for writing, would crash the process or mislay pages.
func TestEveryBitOfTheBranches(t *testing.T) {
	f := newForest(t)
	flips := 0
	for _, id := range append([]uint64{f.root}, f.branches...) {
		for bit := range 8 * f.used(id) {
			file := append([]byte{}, f.file...)
			at := int(id)*f.pageSize + bit/8
			file[at] ^= 1 << (bit % 8)
			if harmless, _ := f.load(t, file); harmless {
				t.Errorf("page %d, bit %d of byte %d: not found", id, bit%8, bit/8)
			}
			flips++
		}
	}
	t.Logf("%d flips", flips)
}

// The same of all pages, most of which a flip may leave as good as they were: see
// -thorough.
func TestBitsOfAllPages(t *testing.T) {
	f := newForest(t)
	rng := rand.New(rand.NewPCG(rand.Uint64(), 1))
	flips, harmless := 0, 0
	for bit := range 8 * len(f.file) {
		page := bit / 8 / f.pageSize
		switch {
		case f.used(uint64(page)) == 0:
			continue
		case *thorough:
		case bit/8%f.pageSize < 16 && rng.IntN(5) == 0:
		case f.file[bit/8] != 0 && rng.IntN(60) == 0:
		default:
			continue
		}
		file := append([]byte{}, f.file...)
		file[bit/8] ^= 1 << (bit % 8)
		if ok, _ := f.load(t, file); ok {
			harmless++
		}
		flips++
	}
	t.Logf("%d of %d flips were harmless", harmless, flips)
}

// Several changes of the structure at once, as a misdirected or lost write leaves
// them.
func TestScrambledPages(t *testing.T) {
	f := newForest(t)
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 1))
	t.Logf("seed %d", seed)
	pages := len(f.file) / f.pageSize
	tree := append(append([]uint64{f.root}, f.branches...), f.leaves...)
	rounds := 400
	if *thorough {
		rounds = 20_000
	}
	for range rounds {
		file := append([]byte{}, f.file...)
		page := func(id uint64) []byte { return file[int(id)*f.pageSize:][:f.pageSize] }
		for range 1 + rng.IntN(3) {
			id := tree[rng.IntN(len(tree))]
			p := page(id)
			switch rng.IntN(5) {
			case 0: // another page is here
				copy(p, page(uint64(rng.IntN(pages))))
			case 1: // and says that it is this one
				copy(p[8:], page(uint64(rng.IntN(pages)))[8:])
			case 2: // another child, key or length
				at := 16 + 4*rng.IntN(20)
				binary.NativeEndian.PutUint32(p[at:], uint32(rng.IntN(64)))
			case 3:
				binary.NativeEndian.PutUint16(p[8+2*rng.IntN(4):], uint16(rng.IntN(4)))
			case 4:
				p[rng.IntN(len(p))] = byte(rng.Uint32())
			}
		}
		_, _ = f.load(t, file)
	}
}

func TestDamagedPages(t *testing.T) {
	f := newForest(t)
	put16, put32, put64 := binary.NativeEndian.PutUint16, binary.NativeEndian.PutUint32, binary.NativeEndian.PutUint64
	key := func(page []byte, i int) []byte { // of a branch
		e := page[16+16*i:]
		return e[binary.NativeEndian.Uint32(e):][:binary.NativeEndian.Uint32(e[4:])]
	}
	type pages func(id uint64) []byte
	first, last, leaf := f.branches[0], f.branches[len(f.branches)-1], f.leaves[0]
	for name, c := range map[string]struct {
		damage func(page pages)
		page   uint64
		reason string
	}{
		"id of a leaf":         {func(page pages) { put64(page(leaf), leaf+1) }, leaf, "says that it is page"},
		"type of a leaf":       {func(page pages) { put16(page(leaf)[8:], 0x10) }, leaf, "neither branch nor leaf"},
		"count of a leaf":      {func(page pages) { put16(page(leaf)[10:], 0xffff) }, leaf, "more elements"},
		"no elements":          {func(page pages) { put16(page(leaf)[10:], 0) }, leaf, "without elements"},
		"endless overflow":     {func(page pages) { put32(page(leaf)[12:], 0xffffffff) }, leaf, "longer than the file"},
		"key beyond the page":  {func(page pages) { put32(page(leaf)[16+8:], 0xffffffff) }, leaf, "not within it"},
		"value beyond it":      {func(page pages) { put32(page(leaf)[16+12:], 0x7fffffff) }, leaf, "not within it"},
		"empty key":            {func(page pages) { put32(page(leaf)[32+8:], 0) }, leaf, "empty"},
		"value is a bucket":    {func(page pages) { put32(page(leaf)[16:], 1) }, 0, "page"},
		"unknown element":      {func(page pages) { put32(page(leaf)[16:], 2) }, leaf, "flags 0x2"},
		"no children":          {func(page pages) { put16(page(first)[10:], 0) }, first, "without children"},
		"child is a meta page": {func(page pages) { put64(page(first)[16+8:], 1) }, 1, "not a page of the tree"},
		"child far away":       {func(page pages) { put64(page(first)[16+8:], 1<<62) }, 1 << 62, "not a page of the tree"},
		"a circle":             {func(page pages) { put64(page(first)[16+8:], f.root) }, f.root, "referenced twice"},
		"a child of two":       {func(page pages) { put64(page(last)[16+8:], leaf) }, 0, "page"},
		"overlapping pages":    {func(page pages) { put32(page(leaf)[12:], 1) }, leaf + 1, "referenced twice"},
		"children swapped": {func(page pages) {
			put64(page(f.root)[16+8:], f.branches[1])
			put64(page(f.root)[32+8:], f.branches[0])
		}, 0, "its parent has another first key"},
		"keys out of order": {func(page pages) { key(page(first), 1)[0] = 0xff }, first, "not above the one before"},
		"first key lowered": {func(page pages) { key(page(first), 0)[15]-- }, 0, "its parent has another first key"},
		// Still between the keys of both children, so a search finds everything.
		"key lowered":        {func(page pages) { key(page(first), 1)[15]-- }, f.leaves[1], "its parent has another first key"},
		"key of root raised": {func(page pages) { key(page(f.root), 1)[15]++ }, 0, "its parent has another first key"},
	} {
		t.Run(name, func(t *testing.T) {
			file := append([]byte{}, f.file...)
			c.damage(func(id uint64) []byte { return file[int(id)*f.pageSize:][:f.pageSize] })
			_, err := f.load(t, file)
			var detail *storage.DamageError
			if !errors.As(err, &detail) || !strings.Contains(detail.Reason, c.reason) || !strings.HasPrefix(detail.Reason, "page ") {
				t.Fatalf("got %v, want a page and %q", err, c.reason)
			}
			if c.page != 0 && !strings.HasPrefix(detail.Reason, fmt.Sprintf("page %d:", c.page)) {
				t.Errorf("got %q, want page %d", detail.Reason, c.page)
			}
		})
	}
	if harmless, err := f.load(t, f.file[:int(f.root)*f.pageSize]); harmless || !strings.Contains(err.Error(), "shorter") {
		t.Errorf("cut short: got %v", err)
	}
	writeFile(t, f.path, f.file)
	if st, err := loadDir(t, f.dir); err != nil {
		t.Fatal(err)
	} else if err := f.model.Check(st); err != nil {
		t.Fatal(err)
	}
}
