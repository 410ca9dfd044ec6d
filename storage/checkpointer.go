package storage

import (
	"context"
	"fmt"
	"time"
)

// checkpoints makes a checkpoint whenever the log has grown enough, or nothing
// was committed for a while.
func (s *disk) checkpoints(ctx context.Context) {
	var idle <-chan time.Time
	if s.opts.CheckpointIdle > 0 {
		ticker := time.NewTicker(s.opts.CheckpointIdle)
		defer ticker.Stop()
		idle = ticker.C
	}
	for {
		due := true
		select {
		case <-ctx.Done():
			return
		case <-s.kick:
		case <-idle:
			due = s.idle()
		}
		if !due {
			continue
		}
		if err := s.checkpoint(ctx); err != nil && ctx.Err() == nil {
			s.mu.Lock()
			_ = s.fail(fmt.Errorf("checkpoint: %w", err)) // reported to all later calls
			s.mu.Unlock()
			s.log.Error("checkpoint failed", "dir", s.dir, "err", err)
			return
		}
	}
}

// idle reports whether there is something in the log that nobody has added to
// lately.
func (s *disk) idle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.oplog.empty() && time.Since(s.last) >= s.opts.CheckpointIdle
}

// checkpoint moves what the log holds now into the bbolt file and removes that
// part of the log.
func (s *disk) checkpoint(ctx context.Context) error {
	s.fileMu.Lock()
	defer s.fileMu.Unlock()
	start := time.Now()
	c, err := s.freeze()
	if err != nil || c == nil {
		return err
	}
	if err := c.run(ctx); err != nil {
		s.mu.Lock()
		s.jammed = c.jammed
		s.mu.Unlock()
		return err
	}
	s.mu.Lock()
	paths := s.oplog.release(c.end.next)
	s.measure()
	s.stats.Checkpoints++
	s.stats.CheckpointSecs += time.Since(start).Seconds()
	s.stats.CheckpointWrites += c.written
	close(s.shrunk)
	s.shrunk = make(chan struct{})
	s.mu.Unlock()

	for _, path := range paths { // oldest first: the chain has no hole at any time
		if err := s.opts.Files.Remove(path); err != nil {
			return err
		}
	}
	s.log.Debug("checkpoint done", "written", c.written, "segments_removed", len(paths), "took", time.Since(start))
	return s.opts.Files.SyncDir(s.dir)
}

// freeze takes the dirty set and begins a new segment, so that the position
// falls between two files. This is all that a commit ever waits for.
func (s *disk) freeze() (*checkpoint, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed != nil || s.closed || s.oplog.next == s.oplog.segments[0].first {
		return nil, s.failed
	}
	if last := s.oplog.segments[len(s.oplog.segments)-1]; last.first != s.oplog.next {
		if err := s.oplog.begin(); err != nil {
			return nil, err
		}
	}
	p := &pacer{store: s, start: s.oplog.size(), since: time.Now()}
	c := &checkpoint{
		db:    s.db,
		set:   s.dirty,
		end:   position{nodeID: s.oplog.nodeID, next: s.oplog.next, hlcBound: s.dirty.hlcBound},
		pause: p.pause,
	}
	s.dirty = newDirty()
	s.dirty.hlcBound = c.end.hlcBound
	return c, nil
}

// A pacer makes a checkpoint leave the disk and the cores to the commits: it
// rests after each transaction in proportion to what that took, unless the log
// has grown so much meanwhile that the checkpoint must hurry.
type pacer struct {
	store *disk
	start int64 // size of the log when the checkpoint began
	since time.Time
}

// restPerWork is the rest after each transaction, as a multiple of its time.
const restPerWork = 2

// pause is called between two transactions.
func (p *pacer) pause(ctx context.Context) error {
	p.store.mu.Lock()
	hurry := p.store.oplog.size()-p.start > p.store.threshold()/2
	closing := p.store.closed
	p.store.mu.Unlock()
	if err := ctx.Err(); err != nil || hurry || closing {
		return err
	}
	timer := time.NewTimer(min(restPerWork*time.Since(p.since), time.Second))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	p.since = time.Now()
	return ctx.Err()
}
