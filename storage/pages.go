package storage

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"

	bolt "go.etcd.io/bbolt"
)

// The pages of a bbolt file (its internal/common/page.go), in the byte order of
// the machine:
//
//	page     id u64, flags u16, count u16, overflow u32; then count elements of
//	         16 bytes; then their keys and values
//	branch   offset of the key from the element u32, its length u32, child page u64
//	leaf     flags u32, offset of the key u32, its length u32, length of the value u32
//	bucket   is the value of a leaf element with the bucket flag: root page u64,
//	         sequence u64; if the root is 0, a leaf page follows inline
const (
	pageHeaderSize   = 16
	pageElementSize  = 16
	bucketHeaderSize = 16

	branchPage    = 1 // flags of a page
	leafPage      = 2
	bucketElement = 1 // flags of a leaf element

	firstTreePage = 2  // behind the two meta pages
	maxPageDepth  = 64 // nested buckets included; a full tree of 10 levels fills any disk
)

// checkPages verifies the pages of all buckets, so that bbolt can be let loose on
// them. When it opens a file without a synced freelist for writing, it walks all
// pages to find the free ones (DB.freepages), in a goroutine of its own: the panic
// or the fault that a damaged page causes there nobody can recover.
//
// What it would stumble over is refused here: each page is within the file, says
// its own id, is a branch or a leaf, and is referenced once, overflow included;
// keys ascend, and those of a child are between two keys of its parent. Two things
// it would not notice are refused as well, since the next write on such a page
// would free pages that are in use: bbolt writes the first key of each child into
// its parent, and later finds the child by it; and an inline page has the id 0.
//
// One way to that goroutine is left: Tx.Commit, when it cannot write, looks for the
// free pages too. The process dies then only if pages were damaged after they were
// verified here, and a write fails as well. bbolt has no option against it, and to
// walk the pages before each commit would cost more than the commit.
//
// A synced freelist, which this program never writes, is not looked at: bbolt
// reads that in the goroutine of the caller.
func checkPages(ctx context.Context, db *bolt.DB) error {
	return guarded(db.Path(), func() error {
		return db.View(func(tx *bolt.Tx) (err error) {
			data, err := mapFile(db.Path())
			if err != nil {
				return fmt.Errorf("map %s: %w", db.Path(), err)
			}
			defer func() { err = errors.Join(err, syscall.Munmap(data)) }()
			pageSize := db.Info().PageSize
			if tx.Size() < 0 || tx.Size() > int64(len(data)) {
				return &DamageError{File: db.Path(), Reason: "the file is shorter than its pages"}
			}
			c := pageCheck{
				path: db.Path(), data: data, pageSize: uint64(pageSize),
				seen:    make([]atomic.Bool, tx.Size()/int64(pageSize)),
				helpers: make(chan struct{}, runtime.GOMAXPROCS(0)),
			}
			return c.run(ctx, uint64(tx.Cursor().Bucket().Root()))
		})
	})
}

// mapFile is the file at path, read-only, and must be unmapped. A read of it may
// fault.
func mapFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return syscall.Mmap(int(f.Fd()), 0, int(info.Size()), syscall.PROT_READ, syscall.MAP_SHARED)
}

// pageCheck is one walk over the pages of a file.
type pageCheck struct {
	path     string
	data     []byte // the file
	pageSize uint64
	seen     []atomic.Bool // by page, below the high water mark: it is referenced

	helpers chan struct{} // one for each of the goroutines that are at work, its capacity at most
	work    sync.WaitGroup
	cancel  context.CancelCauseFunc // with the first error of a helper
}

// A page is one page with its overflow, or one that is inline in a leaf.
type page struct {
	id    uint64 // if inline, of the page that it is in
	flags uint16
	count int
	bytes []byte
}

// A keyRange is what a parent says of the keys of a page.
type keyRange struct {
	first []byte // the first key; nil for the root of a bucket, which may be empty
	limit []byte // all keys are below it; nil for none
}

func (c *pageCheck) damage(id uint64, reason string) error {
	return &DamageError{File: c.path, Reason: fmt.Sprintf("page %d: %s", id, reason)}
}

// run verifies the bucket whose root is page id. Branches are walked by as many
// goroutines as there are cores: the time goes into pages that are in no cache.
func (c *pageCheck) run(ctx context.Context, id uint64) error {
	ctx, c.cancel = context.WithCancelCause(ctx)
	defer c.cancel(nil)
	err := func() error {
		defer c.work.Wait() // also when a fault makes the walk panic
		return c.tree(ctx, id, keyRange{}, 0)
	}()
	if err == nil {
		err = context.Cause(ctx)
	}
	return err
}

// tree verifies page id and all below it. No page is visited twice, which bounds
// the walk.
func (c *pageCheck) tree(ctx context.Context, id uint64, keys keyRange, depth int) error {
	p, err := c.page(id)
	if err != nil {
		return err
	}
	switch {
	case depth > maxPageDepth:
		return c.damage(id, "too deep in the tree")
	case p.flags == branchPage:
		select {
		case c.helpers <- struct{}{}:
			c.work.Go(func() {
				defer func() { <-c.helpers }()
				if err := guarded(c.path, func() error { return c.branch(ctx, p, keys, depth) }); err != nil {
					c.cancel(err)
				}
			})
			return nil
		default:
			return c.branch(ctx, p, keys, depth)
		}
	case p.flags == leafPage:
		return c.leaf(ctx, p, keys, depth)
	}
	return c.damage(id, fmt.Sprintf("neither branch nor leaf: flags %#x", p.flags))
}

// page takes page id, and those that it overflows into, as referenced.
func (c *pageCheck) page(id uint64) (page, error) {
	limit := uint64(len(c.seen))
	if id < firstTreePage || id >= limit {
		return page{}, c.damage(id, "referenced, but not a page of the tree")
	}
	header := c.data[id*c.pageSize:]
	if self := binary.NativeEndian.Uint64(header); self != id {
		return page{}, c.damage(id, fmt.Sprintf("says that it is page %d", self))
	}
	overflow := uint64(binary.NativeEndian.Uint32(header[12:]))
	if overflow >= limit-id {
		return page{}, c.damage(id, "longer than the file")
	}
	for n := id; n <= id+overflow; n++ {
		if c.seen[n].Swap(true) {
			return page{}, c.damage(n, "referenced twice")
		}
	}
	return c.parse(id, c.data[id*c.pageSize:(id+overflow+1)*c.pageSize])
}

func (c *pageCheck) parse(id uint64, b []byte) (page, error) {
	p := page{
		id:    id,
		flags: binary.NativeEndian.Uint16(b[8:]),
		count: int(binary.NativeEndian.Uint16(b[10:])),
		bytes: b,
	}
	if pageHeaderSize+p.count*pageElementSize > len(b) {
		return page{}, c.damage(id, "more elements than it has room for")
	}
	return p, nil
}

func (c *pageCheck) branch(ctx context.Context, p page, keys keyRange, depth int) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if p.count == 0 {
		return c.damage(p.id, "a branch without children")
	}
	var last []byte
	for i := range p.count {
		key, _, ok := p.branchElement(i)
		if err := c.key(p, i, key, ok, last, keys); err != nil {
			return err
		}
		last = key
	}
	key, child, _ := p.branchElement(0)
	for i := range p.count {
		below := keyRange{first: key, limit: keys.limit}
		id := child
		if i+1 < p.count {
			key, child, _ = p.branchElement(i + 1)
			below.limit = key
		}
		if err := c.tree(ctx, id, below, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (c *pageCheck) leaf(ctx context.Context, p page, keys keyRange, depth int) error {
	if p.count == 0 && keys.first != nil {
		return c.damage(p.id, "a leaf without elements")
	}
	var last []byte
	for i := range p.count {
		flags, key, value, ok := p.leafElement(i)
		if err := c.key(p, i, key, ok, last, keys); err != nil {
			return err
		}
		last = key
		switch flags {
		case 0:
		case bucketElement:
			if err := c.bucket(ctx, p.id, value, depth); err != nil {
				return err
			}
		default:
			return c.damage(p.id, fmt.Sprintf("element %d has flags %#x", i, flags))
		}
	}
	return nil
}

// key verifies the i-th key of p, which is there if ok; the one before is last.
func (c *pageCheck) key(p page, i int, key []byte, ok bool, last []byte, keys keyRange) error {
	switch {
	case !ok:
		return c.damage(p.id, fmt.Sprintf("element %d is not within it", i))
	case len(key) == 0:
		return c.damage(p.id, fmt.Sprintf("key %d is empty", i))
	case i == 0 && keys.first != nil && !bytes.Equal(key, keys.first):
		return c.damage(p.id, "its parent has another first key")
	case i > 0 && bytes.Compare(last, key) >= 0:
		return c.damage(p.id, fmt.Sprintf("key %d is not above the one before", i))
	case i == p.count-1 && keys.limit != nil && bytes.Compare(key, keys.limit) >= 0:
		return c.damage(p.id, "its last key is not below what follows in its parent")
	}
	return nil
}

// bucket verifies the bucket that is an element of leaf id.
func (c *pageCheck) bucket(ctx context.Context, id uint64, value []byte, depth int) error {
	if len(value) < bucketHeaderSize {
		return c.damage(id, "a bucket without a header")
	}
	if root := binary.NativeEndian.Uint64(value); root != 0 {
		return c.tree(ctx, root, keyRange{}, depth+1)
	}
	if value = value[bucketHeaderSize:]; len(value) < pageHeaderSize {
		return c.damage(id, "an inline bucket without a page")
	}
	p, err := c.parse(id, value)
	if err != nil {
		return err
	}
	if p.flags != leafPage || binary.NativeEndian.Uint64(value) != 0 || binary.NativeEndian.Uint32(value[12:]) != 0 {
		return c.damage(id, "an inline bucket with a malformed page")
	}
	for i := range p.count {
		if flags, _, _, _ := p.leafElement(i); flags != 0 {
			return c.damage(id, fmt.Sprintf("element %d of an inline bucket has flags %#x", i, flags))
		}
	}
	return c.leaf(ctx, p, keyRange{}, depth)
}

// branchElement is the i-th key and the page below it; ok says that the key is
// within the page.
func (p page) branchElement(i int) (key []byte, child uint64, ok bool) {
	at := pageHeaderSize + i*pageElementSize
	e := p.bytes[at : at+pageElementSize]
	key, ok = p.span(uint64(at)+uint64(binary.NativeEndian.Uint32(e)), uint64(binary.NativeEndian.Uint32(e[4:])))
	return key, binary.NativeEndian.Uint64(e[8:]), ok
}

// leafElement is the i-th key and its value; ok says that both are within the
// page.
func (p page) leafElement(i int) (flags uint32, key, value []byte, ok bool) {
	at := pageHeaderSize + i*pageElementSize
	e := p.bytes[at : at+pageElementSize]
	keyLen, valueLen := uint64(binary.NativeEndian.Uint32(e[8:])), uint64(binary.NativeEndian.Uint32(e[12:]))
	pair, ok := p.span(uint64(at)+uint64(binary.NativeEndian.Uint32(e[4:])), keyLen+valueLen)
	if !ok {
		return 0, nil, nil, false
	}
	return binary.NativeEndian.Uint32(e), pair[:keyLen:keyLen], pair[keyLen:], true
}

// span is n bytes of p; from and n are sums of a few 32-bit numbers.
func (p page) span(from, n uint64) ([]byte, bool) {
	if from+n > uint64(len(p.bytes)) {
		return nil, false
	}
	return p.bytes[from : from+n : from+n], true
}
