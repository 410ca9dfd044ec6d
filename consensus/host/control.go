package host

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/meshkv/meshkv/consensus/machine"
	"github.com/meshkv/meshkv/consensus/placement"
	"github.com/meshkv/meshkv/consensus/replica"
)

const (
	// lookEvery is how often the leader of the system group looks which keyspaces are due.
	lookEvery = time.Second
	// fineEvery is how often it looks at a keyspace of which nothing is to be changed, at all
	// of them at the same time: servers that sleep are woken once.
	fineEvery = 15 * time.Second
	// looksInFlight bounds the keyspaces that are looked at at the same time.
	looksInFlight = 8
	// publishEvery is how often all entries are published again: what tells them may lose some.
	publishEvery = 15 * time.Second
	// stepTimeout bounds one change of a group's members.
	stepTimeout = 10 * time.Second
)

// control does what the leader of the system group does, whenever this server leads it.
func (h *Host) control() {
	for h.ctx.Err() == nil {
		var r *replica.Replica
		if h.await(h.ctx, func() bool { r = h.runningSystem(); return r != nil }) != nil {
			return
		}
		h.followCatalog(r)
	}
}

// runningSystem is the replica of the system group. The caller holds mu.
func (h *Host) runningSystem() *replica.Replica {
	e, ok := h.entries[System]
	if !ok {
		return nil
	}
	if run := h.running[e.Keyspace.Group()]; run != nil {
		return run.replica
	}
	return nil
}

// followCatalog takes note of all entries as they are committed, and while this server leads the
// system group controls the keyspaces, as long as r runs.
func (h *Host) followCatalog(r *replica.Replica) {
	ctx, cancel := context.WithCancel(h.ctx)
	defer cancel()
	var work sync.WaitGroup
	defer work.Wait()
	work.Go(func() { h.learnCatalog(ctx, r) })
	gone := make(chan struct{})
	work.Go(func() {
		defer close(gone)
		h.await(ctx, func() bool { return h.runningSystem() != r })
	})
	for {
		now, changed := r.Group().Leadership()
		if now.Leads {
			led, stop := context.WithCancel(ctx)
			var controlling sync.WaitGroup
			controlling.Go(func() { newController(h, r).run(led) })
			select {
			case <-changed:
			case <-gone:
			}
			stop()
			controlling.Wait()
		}
		select {
		case <-changed:
		case <-gone:
			return
		}
	}
}

// learnCatalog takes note of the entries of the catalog here, until ctx ends.
func (h *Host) learnCatalog(ctx context.Context, r *replica.Replica) {
	for ctx.Err() == nil {
		// What is replayed after a restart is of the past: the present comes first.
		if _, err := r.Read(ctx); err != nil {
			continue // it took its time
		}
		view, w := r.WatchState(keyspacesPrefix)
		all, err := h.entriesOf(view)
		if err != nil {
			h.log.Error("catalog cannot be read", "err", err)
		}
		for _, e := range all {
			h.Learn(e)
		}
		for {
			changes, err := w.Next(ctx)
			if err != nil {
				break // compacted, or the end: from the state again
			}
			for _, c := range changes {
				if c.Next == nil {
					continue
				}
				e, err := h.entryOf(c.Next)
				if err != nil {
					h.log.Error("catalog cannot be read", "err", err)
					continue
				}
				h.Learn(e)
			}
		}
		w.Close()
	}
}

// A controller is the leader of the system group at work: it publishes the entries, and has
// the members of groups changed as placement.Policy says. One goroutine runs it; look does
// its calls beside.
type controller struct {
	h         *Host
	r         *replica.Replica
	began     time.Time
	current   bool // the catalog was read since it was said to have changed
	entries   []Entry
	servers   []placement.Server
	published time.Time
	told      map[string]uint64    // keyspace → the revision of the entry that was published
	due       map[string]time.Time // keyspace → when to look again
	seen      map[string]uint64    // keyspace → the revision of the entry that due is for
	looked    chan look            // what came of a look
	looking   map[string]bool
	entered   bool // see enter
}

type look struct {
	keyspace string
	revision uint64
	again    time.Time
}

func newController(h *Host, r *replica.Replica) *controller {
	return &controller{
		h: h, r: r, began: time.Now(), told: make(map[string]uint64), due: make(map[string]time.Time), seen: make(map[string]uint64),
		looked: make(chan look, looksInFlight), looking: make(map[string]bool),
	}
}

func (c *controller) run(ctx context.Context) {
	var work sync.WaitGroup
	defer work.Wait()
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	w, changed := c.watch(ctx, &work)
	defer w.Close()
	for {
		if c.isDue(time.Now()) {
			if view, err := c.r.Read(ctx); err == nil { // and so it still leads, or another does so later
				if !c.entered {
					c.enter(ctx, view)
				}
				c.round(ctx, view, &work)
			}
		}
		for again := false; !again; {
			select {
			case <-ctx.Done():
				return
			case l := <-c.looked:
				c.done(l)
				// Whatever is to be looked at again at once has changed, or its group has.
				if again = !l.again.After(time.Now()); !again {
					c.lookAtDue(ctx, time.Now(), &work)
				}
			case <-changed:
				c.current, again = false, true
			case <-ticker.C:
				again = true
			}
		}
	}
}

// isDue reports whether a round has something to do.
func (c *controller) isDue(now time.Time) bool {
	return !c.current || !c.entered || c.publishes(now) || slices.ContainsFunc(c.entries, func(e Entry) bool { return c.looksAt(now, e) })
}

func (c *controller) publishes(now time.Time) bool { return now.Sub(c.published) >= publishEvery }

// looksAt reports whether it is time to look at a keyspace.
func (c *controller) looksAt(now time.Time, e Entry) bool {
	name := e.Keyspace.Name
	return !c.looking[name] && !e.Keyspace.Removed && (c.seen[name] != e.Revision || !now.Before(c.due[name]))
}

// nextFine is when the keyspaces of which nothing is to be changed are looked at next.
func (c *controller) nextFine(now time.Time) time.Time {
	return c.began.Add(now.Sub(c.began).Truncate(fineEvery) + fineEvery)
}

// watch gives a signal whenever the catalog changes.
func (c *controller) watch(ctx context.Context, work *sync.WaitGroup) (*replica.Watcher, <-chan struct{}) {
	_, w := c.r.WatchState("")
	changed := make(chan struct{}, 1)
	work.Go(func() {
		for {
			if _, err := w.Next(ctx); err != nil && !errors.Is(err, machine.ErrCompacted) {
				return
			}
			select {
			case changed <- struct{}{}:
			default:
			}
		}
	})
	return w, changed
}

func (c *controller) done(l look) {
	delete(c.looking, l.keyspace)
	c.due[l.keyspace], c.seen[l.keyspace] = l.again, l.revision
}

// enter does what a new leader does first; what fails is done again.
func (c *controller) enter(ctx context.Context, view *machine.View) {
	err := c.enterSystem(ctx)
	if err == nil {
		err = c.renew(ctx, view)
	}
	if err != nil && ctx.Err() == nil {
		c.h.log.Warn("catalog not complete", "err", err)
	}
	c.entered = err == nil
}

// renew writes all entries again that are older than a recovery of the system group, so that what was
// lost with it does not count for more at those who know it.
func (c *controller) renew(ctx context.Context, view *machine.View) error {
	all, err := c.h.entriesOf(view)
	if err != nil {
		return err
	}
	now := uint64(view.Status().Revision)
	entered := map[string]bool{System: true}
	for _, e := range all {
		entered[e.Keyspace.Name] = true
		if machine.SameLife(e.Revision, now) {
			continue
		}
		// What was lost may be known here, and acted upon by others: of the two the later one counts.
		k := e.Keyspace
		if known, ok := c.h.Entry(k.Name); ok && later(&known.Keyspace, &k) {
			k = known.Keyspace
		}
		if _, _, err := c.h.write(ctx, c.r, k, e.Revision); err != nil {
			return err
		}
	}
	for _, e := range c.h.sortedEntries() {
		if entered[e.Keyspace.Name] || machine.SameLife(e.Revision, now) {
			continue
		}
		if _, _, err := c.h.write(ctx, c.r, e.Keyspace, 0); err != nil {
			return err
		}
	}
	return nil
}

// later reports whether a is a later entry of the same keyspace than b.
func later(a, b *placement.Keyspace) bool {
	of := func(yes bool) int {
		if yes {
			return 1
		}
		return 0
	}
	return cmp.Or(cmp.Compare(a.Gen, b.Gen), of(a.Removed)-of(b.Removed), cmp.Compare(a.Epoch, b.Epoch), of(a.Started)-of(b.Started), cmp.Compare(a.Index, b.Index)) > 0
}

// enterSystem writes the entry of the system group into its own catalog, where it is kept
// from then on.
func (c *controller) enterSystem(ctx context.Context) error {
	e, ok := c.h.Entry(System)
	if !ok {
		return nil
	}
	_, err := c.h.revise(ctx, System, func(_ *machine.View, had Entry, existed bool) (placement.Keyspace, error) {
		if existed && had.Keyspace.Epoch >= e.Keyspace.Epoch {
			return had.Keyspace, nil
		}
		return e.Keyspace, nil
	})
	return err
}

// round reads the catalog, publishes what is new, and looks at the keyspaces that are due.
func (c *controller) round(ctx context.Context, view *machine.View, work *sync.WaitGroup) {
	now := time.Now()
	all, err := c.h.entriesOf(view)
	var servers []placement.Server
	if err == nil {
		servers, err = serversOf(view)
	}
	if err != nil {
		c.h.log.Error("catalog cannot be read", "err", err)
		return
	}
	c.entries, c.servers, c.current = all, servers, true
	again := c.publishes(now)
	if again {
		c.published = now
	}
	for _, e := range all {
		name := e.Keyspace.Name
		if (again || c.told[name] != e.Revision) && c.h.cfg.Publish != nil {
			c.h.cfg.Publish(e)
			c.told[name] = e.Revision
		}
	}
	c.lookAtDue(ctx, now, work)
}

// lookAtDue begins to look at keyspaces that are due, as they were in the last round: what
// follows from an entry that is not the present one any more is not recorded.
func (c *controller) lookAtDue(ctx context.Context, now time.Time, work *sync.WaitGroup) {
	servers := c.servers
	for _, e := range c.entries {
		if len(c.looking) >= looksInFlight {
			return
		}
		if !c.looksAt(now, e) {
			continue
		}
		c.looking[e.Keyspace.Name] = true
		work.Go(func() {
			again := c.look(ctx, e, servers)
			select {
			case c.looked <- look{e.Keyspace.Name, e.Revision, again}:
			case <-ctx.Done():
			}
		})
	}
}

// look does what is next for one keyspace and says when to look again.
func (c *controller) look(ctx context.Context, e Entry, servers []placement.Server) time.Time {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	observed, err := c.h.observation(ctx, e)
	if err != nil {
		observed = placement.Observation{}
	}
	a := c.h.cfg.Policy.Next(time.Now(), e.Keyspace, observed, servers, c.h.cfg.Alive)
	soon := time.Now().Add(lookEvery)
	switch a.Do {
	case placement.None:
		if a.Why == placement.Fine || a.Wait.IsZero() {
			return c.nextFine(time.Now())
		}
		return a.Wait
	case placement.Record:
		if _, _, err := c.h.write(ctx, c.r, a.Keyspace, e.Revision); err != nil {
			c.h.log.Warn("entry not recorded", "keyspace", e.Keyspace.Name, "err", err)
			return soon
		}
		return time.Now() // what is next follows from it
	}
	c.h.log.Info("members of a group change", "keyspace", e.Keyspace.Name, "step", a.Do, "replica", a.Replica.ID)
	s := step{Group: e.Keyspace.Group(), Do: a.Do, Replica: a.Replica, Index: a.Index}
	if a.Do == placement.AddLearner {
		c.h.spread(ctx, e) // so that the server opens it
	}
	if _, err := atLeader[bool](ctx, c.h, e, callStep, s); err != nil {
		c.h.log.Warn("step not taken", "keyspace", e.Keyspace.Name, "step", a.Do, "replica", a.Replica.ID, "err", err)
		return soon
	}
	return time.Now()
}
