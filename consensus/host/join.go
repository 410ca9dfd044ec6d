package host

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/meshkv/meshkv/consensus/placement"
)

const (
	// statementEvery is how often a server tells the others of itself before the system group
	// has begun.
	statementEvery = 200 * time.Millisecond
	// registerEvery is the pause between two attempts to register.
	registerEvery = time.Second
	// complainEvery is how often a reason for which nothing goes on is logged.
	complainEvery = 10 * time.Second
)

// A starter is this server's part in the first start of the system group.
type starter struct {
	mu   sync.Mutex // protects the fields below
	core *placement.Bootstrap
	err  error // why nothing goes on
}

// Stuck is why the system group does not begin, or nil: an operator must act.
func (h *Host) Stuck() error {
	h.starter.mu.Lock()
	defer h.starter.mu.Unlock()
	return h.starter.err
}

// join begins the system group or finds it, and registers this server with it.
func (h *Host) join() {
	if _, ok := h.Entry(System); !ok && len(h.cfg.Bootstrap) > 0 {
		if err := h.bootstrap(); err != nil {
			if h.ctx.Err() == nil {
				h.log.Error("system group cannot begin", "err", err)
				h.starter.mu.Lock()
				h.starter.err = err
				h.starter.mu.Unlock()
			}
		}
	}
	known := func() bool { _, ok := h.entries[System]; return ok }
	if h.await(h.ctx, known) != nil {
		return
	}
	h.starter.mu.Lock()
	h.starter.core, h.starter.err = nil, nil
	h.starter.mu.Unlock()
	self := h.identity.server(h.cfg.Zone)
	for {
		e, _ := h.Entry(System)
		ctx, cancel := context.WithTimeout(h.ctx, stepTimeout)
		_, err := atCatalog[any](ctx, h, callRegister, self)
		cancel()
		if err == nil {
			h.log.Info("server registered", "disk", self.Disk)
			// A system group that was recovered may have lost it.
			other := func() bool { return h.entries[System].Keyspace.Epoch != e.Keyspace.Epoch }
			if h.await(h.ctx, other) != nil {
				return
			}
			continue
		}
		h.log.Debug("server not registered yet", "err", err)
		if h.pause(h.ctx, registerEvery) != nil {
			return
		}
	}
}

// bootstrap takes part in the first start until the system group has begun here, or is known to
// have begun elsewhere.
func (h *Host) bootstrap() error {
	file := h.identity.get()
	self := placement.Identity{Name: file.Name, Disk: file.Disk}
	var stored *placement.Promise
	if len(file.Bootstrap) > 0 {
		stored = new(placement.Promise)
		if err := json.Unmarshal(file.Bootstrap, stored); err != nil {
			return fmt.Errorf("%w: %w", placement.ErrDamagedPromise, err)
		}
	}
	core, err := placement.NewBootstrap(self, h.cfg.Bootstrap, stored, false)
	if err != nil {
		return err
	}
	h.starter.mu.Lock()
	h.starter.core = core
	h.starter.mu.Unlock()
	var complained time.Time
	for {
		h.tell()
		begun, waiting, err := h.decide()
		if begun {
			return err
		}
		if _, known := h.Entry(System); known {
			return nil
		}
		if time.Since(complained) >= complainEvery {
			complained = time.Now()
			if err != nil {
				h.log.Error("system group does not begin", "err", err)
			} else {
				h.log.Info("system group waits for servers", "waiting", waiting)
			}
		}
		if err := h.pause(h.ctx, statementEvery); err != nil {
			return err
		}
	}
}

// tell exchanges statements with the other servers of the list, and asks them for a system group
// that has begun without this server's disk.
func (h *Host) tell() {
	ctx, cancel := context.WithTimeout(h.ctx, time.Second)
	defer cancel()
	h.starter.mu.Lock()
	mine := h.starter.core.Statement()
	h.starter.mu.Unlock()
	var work sync.WaitGroup
	defer work.Wait()
	for _, name := range h.cfg.Bootstrap {
		if name == h.cfg.Name {
			continue
		}
		work.Go(func() {
			said, err := ask[said](ctx, h, name, callStatement, mine)
			if err != nil {
				return // it is not there yet
			}
			if said.Statement != nil {
				h.heard(*said.Statement)
			}
			if said.System != nil {
				h.Learn(*said.System)
			}
		})
	}
}

// said is the answer to a statement: that of the other server, or the system group if it has begun there.
type said struct {
	Statement *placement.Statement `json:"statement,omitempty"`
	System    *Entry               `json:"system,omitempty"`
}

// hear takes the statement of another server, and gives this one's.
func (h *Host) hear(s placement.Statement) (said, error) {
	h.heard(s)
	h.starter.mu.Lock()
	core := h.starter.core
	var answer said
	if core != nil {
		mine := core.Statement()
		answer.Statement = &mine
	}
	h.starter.mu.Unlock()
	if e, ok := h.Entry(System); ok {
		answer.System = &e
	}
	if answer.Statement == nil && answer.System == nil {
		return said{}, fmt.Errorf("%w: %s is not given a list of servers", ErrNotReady, h.cfg.Name)
	}
	return answer, nil
}

func (h *Host) heard(s placement.Statement) {
	h.starter.mu.Lock()
	defer h.starter.mu.Unlock()
	if h.starter.core == nil {
		return
	}
	if err := h.starter.core.Hear(s); err != nil {
		h.log.Warn("statement of another server ignored", "peer", s.Name, "err", err)
	}
}

// promised reports whether this disk has not promised another system group than e is of.
func (h *Host) promised(e Entry) bool {
	file := h.identity.get()
	if len(file.Bootstrap) == 0 {
		return true
	}
	var p placement.Promise
	if err := json.Unmarshal(file.Bootstrap, &p); err != nil || p.Cluster != e.Cluster {
		h.log.Error("another system group runs than this server promised to begin", "promised", p.Cluster, "runs", e.Cluster)
		return false
	}
	return true
}

// decide does what is next. begun: the system group has begun here.
func (h *Host) decide() (begun bool, waiting []string, err error) {
	h.starter.mu.Lock()
	defer h.starter.mu.Unlock()
	core := h.starter.core
	for {
		d := core.Decide()
		h.starter.err = d.Err
		switch {
		case d.Promise != nil:
			b, err := json.Marshal(d.Promise)
			if err == nil {
				err = h.identity.change(func(f *identityFile) { f.Bootstrap = b })
			}
			if err != nil {
				h.fail(err) // whether it is on the disk is not known
				return true, nil, err
			}
			core.Promised(d.Promise)
		case d.Start != nil:
			core.Began()
			h.log.Info("system group begins", "cluster", d.Start.Cluster, "servers", d.Start.Servers)
			h.Learn(Entry{Revision: 1, Cluster: d.Start.Cluster, Keyspace: d.Start.System()})
			return true, nil, nil
		default:
			return false, d.Waiting, d.Err
		}
	}
}

// noteSystem keeps the entry of the system group, by which this server finds it after a restart.
func (h *Host) noteSystem(e Entry) error {
	if had := h.identity.get().System; had != nil && had.Revision >= e.Revision {
		return nil
	}
	return h.identity.change(func(f *identityFile) { f.System, f.Cluster = &e, e.Cluster })
}
