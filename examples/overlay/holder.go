package overlay

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/meshkv/meshkv/client"
)

// A holder leases addresses for an agent and announces what runs on the host under
// them. It belongs to the goroutine of hold.
type holder struct {
	agent            *Agent
	nodes, endpoints client.Keyspace
	ipam             IPAM

	lease *Lease
	moved map[netip.Addr]uint64 // tokens of the claims to single addresses under lease
	own   map[string]resident   // by key: what runs here
}

// A resident is an endpoint that runs on the host.
type resident struct {
	Endpoint
	moved bool // its address is or was claimed singly
}

// ask has f carried out by the holder, once it has a lease.
func (a *Agent) ask(ctx context.Context, f func(*holder) error) error {
	done := make(chan error, 1)
	select {
	case a.requests <- func(h *holder) { done <- f(h) }:
		return <-done
	case <-ctx.Done():
		return ctx.Err()
	case <-a.ended:
		return client.ErrClosed
	}
}

// Claim makes an address this host's, wherever it was: a container moves here. Attach
// announces it then. It waits for a lease while the host has none.
func (a *Agent) Claim(ctx context.Context, ip netip.Addr) (c Claim, err error) {
	err = a.ask(ctx, func(h *holder) (err error) {
		c, err = h.claim(ctx, ip)
		return err
	})
	return c, err
}

// Attach announces an endpoint of this host; its Node and Token are filled in.
// ErrNotOwner if its address is not this host's. It waits for a lease while the host
// has none.
func (a *Agent) Attach(ctx context.Context, p Endpoint) error {
	p.Node = a.cfg.Node.Name
	return a.ask(ctx, func(h *holder) error { return h.attach(ctx, p) })
}

// Detach withdraws an endpoint.
func (a *Agent) Detach(ctx context.Context, key string) error {
	return a.ask(ctx, func(h *holder) error {
		delete(h.own, key)
		_, err := h.endpoints.Delete(ctx, key, nil)
		return err
	})
}

// hold leases a /24 and announces what runs here, and does so anew whenever the lease
// is lost, until ctx ends.
func (h *holder) hold(ctx context.Context) {
	log := h.agent.log
	var former Claim
	for wait := newPause(); ; {
		lease, err := h.ipam.Take(ctx, former)
		if err == nil {
			log.Info("leased", "subnet", lease.Prefix, "token", lease.Token, "former", former.Prefix)
			former, wait = lease.Claim, newPause()
			err = h.serve(ctx, lease)
			h.agent.note(func(r *Report) { r.Lease = Claim{} })
			if err := finally(ctx, lease.End); err != nil {
				log.Warn("lease left to its TTL", "err", err)
			}
		}
		if ctx.Err() != nil {
			return
		}
		log.Warn("no lease", "err", err)
		if wait.next(ctx) != nil {
			return
		}
	}
}

// serve announces under a lease and carries out requests, until the lease is lost.
// What was announced is withdrawn then; others refuse it from then on even so.
func (h *holder) serve(ctx context.Context, lease *Lease) error {
	h.lease, h.moved = lease, map[netip.Addr]uint64{}
	if err := h.announce(ctx); err != nil {
		return errors.Join(err, h.withdraw(ctx))
	}
	h.agent.note(func(r *Report) {
		r.Lease = lease.Claim
		r.Leases++
	})
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-lease.Lost():
			return errors.Join(client.ErrSessionLost, h.withdraw(ctx))
		case f := <-h.agent.requests:
			f(h)
		}
	}
}

// announce publishes the host and what runs on it. An endpoint whose address went to
// another host meanwhile is forgotten.
func (h *holder) announce(ctx context.Context) error {
	n := h.agent.cfg.Node
	n.Subnet, n.Token = h.lease.Prefix, h.lease.Token
	key, value, err := n.Encode()
	if err != nil {
		return err
	}
	if err := putOwned(ctx, h.nodes, key, value); err != nil {
		return fmt.Errorf("publish host: %w", err)
	}
	for key, r := range h.own {
		err := h.regain(ctx, r)
		if err == nil {
			err = h.attach(ctx, r.Endpoint)
		}
		if errors.Is(err, ErrNotOwner) {
			delete(h.own, key)
			h.agent.log.Warn("endpoint lost its address", "endpoint", r.Name, "err", err)
			h.agent.note(func(r *Report) { r.Dropped++ })
			continue
		}
		if err != nil {
			return fmt.Errorf("publish endpoint: %w", err)
		}
	}
	return nil
}

// regain claims the address of an endpoint of a former lease, if it is not in the
// present one: nobody may have claimed it since, nor the /24 that was leased here.
func (h *holder) regain(ctx context.Context, r resident) error {
	if h.lease.Prefix.Contains(r.IP) {
		return nil
	}
	while := []client.Compare{absent(address(r.IP))}
	if !r.moved {
		while = append(while, absent(block(r.IP)))
	} else if err := h.ipam.release(ctx, Claim{address(r.IP), r.Node, r.Token}); err != nil {
		return err
	}
	_, err := h.claim(ctx, r.IP, while...)
	return err
}

func (h *holder) claim(ctx context.Context, ip netip.Addr, while ...client.Compare) (Claim, error) {
	c, err := h.ipam.Move(ctx, h.lease, ip, while...)
	if err == nil {
		h.moved[ip] = c.Token
	}
	return c, err
}

// attach publishes an endpoint under the claim to its address.
func (h *holder) attach(ctx context.Context, p Endpoint) error {
	token, moved := h.moved[p.IP]
	owner := Claim{address(p.IP), p.Node, token}
	if !moved {
		owner = h.lease.Claim
	}
	if !owner.Prefix.Contains(p.IP) || h.agent.outdated(owner, p.IP) {
		return fmt.Errorf("%w: %v", ErrNotOwner, p.IP)
	}
	p.Token = owner.Token
	key, value, err := p.Encode()
	if err != nil {
		return err
	}
	h.own[key] = resident{p, moved}
	return putOwned(ctx, h.endpoints, key, value)
}

// outdated reports whether ip has been seen to belong to another claim than c since.
func (a *Agent) outdated(c Claim, ip netip.Addr) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	move, moved := a.claims[address(ip)]
	return moved && move.Node != c.Node || a.fences.Refuse(c, ip)
}

// withdraw takes back what announce and attach have published.
func (h *holder) withdraw(ctx context.Context) error {
	return finally(ctx, func(ctx context.Context) error {
		_, err := h.nodes.Delete(ctx, h.agent.cfg.Node.Name, nil)
		errs := []error{err}
		for key := range h.own {
			_, err := h.endpoints.Delete(ctx, key, nil)
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	})
}

// putOwned publishes an owner-bound record.
func putOwned(ctx context.Context, ks client.Keyspace, key string, value []byte) error {
	_, err := ks.Put(ctx, key, value, &client.PutOptions{Ephemeral: true})
	return err
}
