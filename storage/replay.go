package storage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"github.com/meshkv/meshkv/crdt"
)

// replayed is what the log of a directory holds.
type replayed struct {
	set      *dirty
	segments []segment // that exist, ascending, without a blank last one
	last     scanned   // of the last of segments
	blank    string    // path of a last segment that was not begun, or empty
}

// replay reads the log from the record with seq next on.
func replay(ctx context.Context, dir string, files Files, nodeID string, next uint64) (r replayed, err error) {
	firsts, err := listSegments(dir)
	if err != nil {
		return r, err
	}
	for len(firsts) > 1 && firsts[1] <= next {
		// Before the position: left over from a crash before they were removed.
		r.segments = append(r.segments, segment{path: segmentPath(dir, firsts[0]), first: firsts[0]})
		firsts = firsts[1:]
	}
	if len(firsts) == 0 || firsts[0] > next {
		return r, &DamageError{File: dir, Reason: fmt.Sprintf("the log segment with record %d is missing", next)}
	}
	dec := newReplayDecoder(ctx)
	defer dec.close()
	var prev scanned
	for i, first := range firsts {
		path := segmentPath(dir, first)
		s, err := scanPath(files, path, func(seq uint64, payload []byte) error {
			if seq < next {
				return nil
			}
			return dec.add(path, payload)
		})
		if err != nil {
			return r, err
		}
		final := i == len(firsts)-1
		// The process stopped between beginning this segment and sealing the one
		// before: it is as if it had not begun.
		unborn := final && i > 0 && !prev.sealed && (s.blank || s.next == first && !s.torn)
		switch {
		case s.blank && unborn:
		case s.blank:
			return r, &DamageError{File: path, Reason: "the segment has no header"}
		case s.header.first != first:
			return r, &DamageError{File: path, Reason: "the segment has another's name"}
		case s.header.nodeID != nodeID:
			return r, &DamageError{File: path, Reason: "the segment is of another directory"}
		case i > 0 && first != prev.next:
			return r, &DamageError{File: dir, Reason: fmt.Sprintf("the log segment with record %d is missing", prev.next)}
		case i > 0 && !prev.sealed && !unborn:
			return r, &DamageError{File: segmentPath(dir, firsts[i-1]), Reason: "the end of the segment is missing"}
		case final && s.sealed:
			return r, &DamageError{File: dir, Reason: fmt.Sprintf("the log segment with record %d is missing", s.next)}
		}
		if unborn {
			r.blank = path
			break
		}
		prev = s
		r.segments = append(r.segments, segment{path: path, first: first, size: s.end})
	}
	r.last = prev
	r.set, err = dec.result()
	return r, err
}

func scanPath(files Files, path string, visit func(uint64, []byte) error) (s scanned, err error) {
	f, err := files.Open(path)
	if err != nil {
		return s, err
	}
	s, err = scan(f, path, visit)
	return s, errors.Join(err, f.Close())
}

// replayDecoder decodes batches on all cores and applies them in order.
type replayDecoder struct {
	ctx   context.Context // of one Load, which this does not outlive
	queue chan *replayJob // in order, to be applied
	work  chan *replayJob
	wg    sync.WaitGroup
	once  sync.Once
	set   *dirty
	mu    sync.Mutex // protects err
	err   error
}

type replayJob struct {
	path    string
	payload []byte
	batch   Batch
	err     error
	done    chan struct{}
}

func newReplayDecoder(ctx context.Context) *replayDecoder {
	n := runtime.GOMAXPROCS(0)
	d := &replayDecoder{
		ctx:   ctx,
		queue: make(chan *replayJob, 8*n),
		work:  make(chan *replayJob, 8*n),
		set:   newDirty(),
	}
	d.set.replaying = true
	for range n {
		d.wg.Go(func() {
			dec := crdt.NewDecoder()
			for j := range d.work {
				dec.Reset(j.payload)
				j.batch, j.err = decodeBatch(dec)
				j.payload = nil
				close(j.done)
			}
		})
	}
	d.wg.Go(func() {
		for j := range d.queue {
			<-j.done
			if j.err == nil {
				j.err = checkBatch(&j.batch)
			}
			if j.err != nil {
				d.mu.Lock()
				if d.err == nil {
					d.err = &DamageError{File: j.path, Reason: "malformed batch", Cause: j.err}
				}
				d.mu.Unlock()
				continue
			}
			d.set.apply(&j.batch)
		}
	})
	return d
}

func (d *replayDecoder) add(path string, payload []byte) error {
	if err := d.ctx.Err(); err != nil {
		return err
	}
	j := &replayJob{path: path, payload: payload, done: make(chan struct{})}
	d.work <- j
	d.queue <- j
	return nil
}

func (d *replayDecoder) close() {
	d.once.Do(func() {
		close(d.work)
		close(d.queue)
		d.wg.Wait()
	})
}

// result is all batches, applied.
func (d *replayDecoder) result() (*dirty, error) {
	d.close()
	return d.set, d.err
}

// fresh reports whether dir holds nothing, or only what the very first Load of a
// directory leaves when it is cut short: a first segment without a record, and no
// cells. Then it removes that.
func fresh(dir string, files Files) (bool, error) {
	if _, err := os.Stat(filepath.Join(dir, cellFileName)); !errors.Is(err, os.ErrNotExist) {
		return false, err
	}
	firsts, err := listSegments(dir)
	if err != nil || len(firsts) == 0 {
		return err == nil, err
	}
	path := segmentPath(dir, firsts[0])
	s, err := scanPath(files, path, func(uint64, []byte) error { return nil })
	if err != nil {
		return false, err
	}
	if len(firsts) > 1 || firsts[0] != 1 || s.next > 1 {
		return false, &DamageError{File: filepath.Join(dir, cellFileName), Reason: "the file is missing, and there is a log"}
	}
	return true, files.Remove(path)
}
