package replica

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/meshkv/meshkv/consensus/group"
	"github.com/meshkv/meshkv/consensus/keeper"
	"github.com/meshkv/meshkv/consensus/machine"
)

// duties are what the leader does besides serving: it ends sessions that are silent and the
// delays of locks, and compacts history. One goroutine does it, whenever this replica leads.
type duties struct {
	r *Replica

	mu      sync.Mutex     // protects the fields below
	keeper  *keeper.Keeper // nil: this replica does not lead, or has not taken over yet
	term    uint64         // in which keeper took over
	notes   bool           // what is applied is noted for the keeper
	granted []machine.LeaseID
	delayed []machine.LockEvent
	changed chan struct{} // closed and replaced when a proposal of the keeper's was applied
	wake    chan struct{} // of capacity 1: there is something new for the keeper
}

func newDuties(r *Replica) *duties {
	return &duties{r: r, changed: make(chan struct{}), wake: make(chan struct{}, 1)}
}

// note hears of all that was applied, in order. state.mu is held.
func (d *duties) note(outcomes []outcome) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.notes {
		return
	}
	news := false
	for i := range outcomes {
		res := &outcomes[i].result
		if res.Lease != 0 && res.Err == nil && !res.Duplicate {
			d.granted, news = append(d.granted, res.Lease), true
		}
		for _, ev := range res.Locks {
			if ev.Kind == machine.Delayed {
				d.delayed, news = append(d.delayed, ev), true
			}
		}
	}
	if news {
		signal(d.wake)
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // it is awake
	}
}

// absorb gives the keeper what was noted. A lease that has ended since is none. The caller
// holds mu; view is not older than the notes.
func (d *duties) absorb(view *machine.View, now time.Time) {
	for _, id := range d.granted {
		if l := view.Lease(id); l != nil {
			d.keeper.Granted(now, id, l.TTL)
		}
	}
	for _, ev := range d.delayed {
		d.keeper.Delay(now, ev.Name, ev.Token, ev.Delay)
	}
	d.granted, d.delayed = nil, nil
}

// take gives the keeper what was noted, and returns it locked with the state; nil if this
// replica does not lead. The caller unlocks mu in any case.
func (d *duties) take() (*keeper.Keeper, *machine.View) {
	d.r.state.mu.Lock() // before mu, as note has it
	view := d.r.state.machine.View()
	d.mu.Lock()
	d.r.state.mu.Unlock()
	if d.keeper != nil {
		d.absorb(view, time.Now())
	}
	return d.keeper, view
}

// KeepAlive keeps a session alive and returns its TTL, which counts for its owner from when
// he called. It fails with machine.ErrLeaseNotFound if the session has ended, and otherwise like Read.
func (r *Replica) KeepAlive(ctx context.Context, id machine.LeaseID) (ttl time.Duration, err error) {
	err = r.atLeader(ctx, func(ctx context.Context, leader string) error {
		if leader == "" {
			ttl, err = r.duties.keepAlive(ctx, id)
			return gone(err)
		}
		reply, err := r.call(ctx, leader, CallKeepAlive, binary.LittleEndian.AppendUint64(nil, uint64(id)))
		if err == nil && len(reply) != 8 {
			err = fmt.Errorf("%w: answer of %d bytes", ErrUnknownCall, len(reply))
		}
		if err != nil {
			return gone(err)
		}
		ttl = time.Duration(binary.LittleEndian.Uint64(reply)) * time.Millisecond
		return nil
	})
	return ttl, err
}

// gone makes the end of a session final.
func gone(err error) error {
	if errors.Is(err, machine.ErrLeaseNotFound) {
		return final{err}
	}
	return err
}

// keepAlive is KeepAlive at the leader. See package keeper for why it is confirmed that this
// replica leads after the session was heard, and why a checkpoint that may stand is cleared first.
func (d *duties) keepAlive(ctx context.Context, id machine.LeaseID) (time.Duration, error) {
	for {
		k, _ := d.take()
		if k == nil {
			d.mu.Unlock()
			if nodeOf(d.r.group.Leader().Addr) == d.r.cfg.Node {
				return 0, &group.NotLeaderError{} // it has not taken over yet
			}
			return 0, &group.NotLeaderError{Leader: d.r.group.Leader()}
		}
		ttl, ack := k.KeepAlive(time.Now(), id)
		changed, term := d.changed, d.term
		d.mu.Unlock()
		switch ack {
		case keeper.Gone: // a deposed leader knows nothing of new ones
			if err := d.confirm(ctx, term); err != nil {
				return 0, err
			}
			return 0, machine.ErrLeaseNotFound
		case keeper.Alive:
			return ttl, d.confirm(ctx, term)
		}
		signal(d.wake) // it may have something to propose
		select {
		case <-changed:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

// confirm proves that this replica leads, and has led since the term began: another leader in between may
// have had sessions of which the keeper knows nothing.
func (d *duties) confirm(ctx context.Context, term uint64) error {
	if _, err := d.r.group.ReadIndex(ctx); err != nil {
		return err
	}
	if d.r.group.Term() != term {
		return &group.NotLeaderError{}
	}
	return nil
}

// run does the duties whenever this replica leads.
func (d *duties) run() {
	for {
		now, changed := d.r.group.Leadership()
		if now.Leads {
			d.lead(now.Term, changed)
		}
		select {
		case <-changed:
		case <-d.r.ctx.Done():
			return
		}
	}
}

// lead does the duties until changed is closed.
func (d *duties) lead(term uint64, changed <-chan struct{}) {
	ctx, cancel := context.WithCancel(d.r.ctx)
	defer cancel()
	var work sync.WaitGroup
	defer work.Wait()
	work.Go(func() {
		defer cancel()
		select {
		case <-changed:
		case <-ctx.Done():
		}
	})
	if !d.takeOver(ctx, term) {
		return
	}
	defer d.drop()
	work.Go(func() {
		d.setQuota(ctx)
		newHistory(d.r).run(ctx)
	})
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.wake:
		case <-timer.C:
		}
		k, view := d.take()
		now := time.Now()
		e := k.Tick(now)
		due, any := k.NextDue()
		d.mu.Unlock()
		d.propose(&work, view, e)
		if any {
			timer.Reset(time.Until(due))
		}
	}
}

// setQuota makes the quota that of the configuration.
func (d *duties) setQuota(ctx context.Context) {
	quota := d.r.cfg.Quota
	for ctx.Err() == nil && quota != 0 && d.r.View().Status().Quota != quota {
		if err := d.r.proposeOwn(&machine.SetQuota{Bytes: quota}); err == nil {
			return
		}
		if pause(ctx, maxBackoff) != nil {
			return
		}
	}
}

// takeOver makes a keeper of what is in the machine, once that has all of the leaders before.
func (d *duties) takeOver(ctx context.Context, term uint64) bool {
	d.mu.Lock()
	d.notes = true
	d.mu.Unlock()
	for {
		_, err := d.r.group.ReadIndex(ctx)
		if err == nil {
			break
		}
		if pause(ctx, maxBackoff) != nil {
			d.drop()
			return false
		}
	}
	d.r.state.mu.Lock()
	view := d.r.state.machine.View()
	d.mu.Lock()
	d.r.state.mu.Unlock()
	defer d.mu.Unlock()
	var leases []machine.Lease
	view.Leases(func(l *machine.Lease) bool {
		leases = append(leases, *l)
		return true
	})
	now := time.Now()
	d.keeper, d.term = keeper.New(now, leases), term
	view.Delays(func(name string, h machine.Holder) bool {
		d.keeper.Delay(now, name, h.Token, h.Delay)
		return true
	})
	d.granted, d.delayed = nil, nil // they are in the view
	return true
}

// drop ends the keeper: this replica does not lead any more.
func (d *duties) drop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.keeper, d.notes, d.granted, d.delayed = nil, false, nil, nil
	close(d.changed)
	d.changed = make(chan struct{})
}

// propose has the effects applied, beside each other, and tells the keeper what became of them.
func (d *duties) propose(work *sync.WaitGroup, view *machine.View, e keeper.Effects) {
	// A session that its owner ended is nothing to propose.
	var over, expire []machine.LeaseID
	for _, id := range e.Expire {
		if view.Lease(id) == nil {
			over = append(over, id)
		} else {
			expire = append(expire, id)
		}
	}
	if len(over) > 0 {
		d.tell(keeper.Effects{Expire: over}, nil)
	}
	if len(expire) > 0 {
		work.Go(func() { d.tell(keeper.Effects{Expire: expire}, d.r.proposeOwn(&machine.Expire{IDs: expire})) })
	}
	if len(e.Checkpoint) > 0 {
		work.Go(func() {
			d.tell(keeper.Effects{Checkpoint: e.Checkpoint}, d.r.proposeOwn(&machine.Checkpoint{Leases: e.Checkpoint}))
		})
	}
	for _, end := range e.EndDelay {
		work.Go(func() {
			err := d.r.proposeOwn(&end)
			if errors.Is(err, machine.ErrNotHeld) { // it is over
				err = nil
			}
			d.tell(keeper.Effects{EndDelay: []machine.EndDelay{end}}, err)
		})
	}
}

// tell tells the keeper what became of effects.
func (d *duties) tell(e keeper.Effects, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.keeper == nil {
		return
	}
	if err != nil {
		d.r.log.Debug("duty not done", "err", err)
		d.keeper.Failed(time.Now(), e)
	} else {
		d.keeper.Applied(e)
	}
	close(d.changed)
	d.changed = make(chan struct{})
	signal(d.wake)
}

// proposeOwn has a command of the leader's own applied. It waits for the outcome, whatever it is.
func (r *Replica) proposeOwn(body machine.Body) error {
	c := machine.Command{Wall: time.Now().UnixMilli(), Body: body}
	cmd, err := c.AppendBinary(nil)
	if err != nil {
		return err
	}
	o, err := r.batcher.propose(context.Background(), cmd)
	if err == nil {
		err = o.result.Err
	}
	return err
}
