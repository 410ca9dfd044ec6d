//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/meshkv/meshkv/examples/overlay"
)

// A Verdict is the comparison of one host's kernel with its store.
type Verdict struct {
	Host   string
	Want   overlay.Tables // by the store
	Differ overlay.Changes
	Cut    error // why the host could not read the claims, and its agent's were taken
	Err    error // the host could not be read
}

// OK reports that the kernel holds exactly what the store says.
func (v Verdict) OK() bool { return v.Err == nil && v.Differ.Len() == 0 }

// Verify compares kernel and store on each live host, by reading both anew;
// the agents are not asked. A change on its way shows as a difference.
func (s *State) Verify(ctx context.Context) []Verdict {
	live := s.Live()
	verdicts := make([]Verdict, len(live))
	var wg sync.WaitGroup
	for i, h := range live {
		wg.Go(func() {
			v := Verdict{Host: h.Name}
			var have overlay.Tables
			if v.Want, v.Cut, v.Err = s.open(h).store(ctx, slices.Contains(s.Servers(), h.Name)); v.Err == nil {
				if have, v.Err = s.open(h).kernel(); v.Err == nil {
					v.Differ = overlay.Diff(v.Want, have)
				}
			}
			verdicts[i] = v
		})
	}
	wg.Wait()
	return verdicts
}

// A LeaseCheck is what the keyspace of addresses holds.
type LeaseCheck struct {
	Leases, Moves int   // claims
	Err           error // they overlap, or no host could read them
}

// VerifyLeases reads the leases through the first live host that can, and checks that
// no two of them have an address in common.
func (s *State) VerifyLeases(ctx context.Context) LeaseCheck {
	err := errors.New("no host is alive")
	for _, h := range s.Live() {
		attempt, cancel := context.WithTimeout(ctx, 5*time.Second)
		blocks, claims, failed := s.open(h).leases(attempt)
		cancel()
		if failed != nil {
			err = fmt.Errorf("%s reads no leases: %w", h.Name, failed)
			continue
		}
		c := LeaseCheck{Err: overlay.CheckLeases(blocks, claims)}
		for _, claim := range claims {
			if claim.Prefix.IsSingleIP() {
				c.Moves++
			} else {
				c.Leases++
			}
		}
		return c
	}
	return LeaseCheck{Err: err}
}

// expected is what the kernel of the host self should hold when everyone in
// sight of it is known to it: the lab's own truth, beside the store's.
func (s *State) expected(self string) overlay.Tables {
	visible := map[string]bool{}
	var r overlay.Records
	leases := map[netip.Prefix]overlay.Claim{}
	for _, h := range s.Hosts {
		c := overlay.Claim{Prefix: h.Subnet, Node: h.Name, Token: h.Token}
		leases[h.Subnet] = c
		r.Claims = append(r.Claims, c)
	}
	for _, h := range s.Live() {
		if h.Name == self || s.connected(self, h.Name) {
			visible[h.Name] = true
			r.Nodes = append(r.Nodes, h.Node())
		}
	}
	for _, c := range s.Containers {
		p := c.Endpoint()
		if p.Token = c.Token; c.Token > 0 {
			r.Claims = append(r.Claims, overlay.Claim{Prefix: netip.PrefixFrom(c.IP, 32), Node: c.Host, Token: c.Token})
		} else if block, err := c.IP.Prefix(24); err == nil {
			p.Token = leases[block].Token
		}
		if visible[c.Host] {
			r.Endpoints = append(r.Endpoints, p)
		}
	}
	want, _ := overlay.Desired(self, VNI, r, nil)
	return want
}

// connected reports whether the present partition lets two hosts talk.
func (s *State) connected(a, b string) bool {
	side := func(h string) int {
		return slices.IndexFunc(s.Groups, func(g []string) bool { return slices.Contains(g, h) })
	}
	i, j := side(a), side(b)
	return i == j || i < 0 || j < 0
}

// A Settled is the moment at which one host's kernel held what it should.
type Settled struct {
	Host  string
	After time.Duration
}

// Settle waits until the kernel of every live host holds exactly what the lab
// expects, and reports when each did, by name of the host. ErrDiffers if one
// does not within the time limit.
func (s *State) Settle(ctx context.Context, within time.Duration) ([]Settled, error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	live := s.Live()
	settled := make([]Settled, len(live))
	errs := make([]error, len(live))
	start := time.Now()
	var wg sync.WaitGroup
	for i, h := range live {
		want := s.expected(h.Name)
		wg.Go(func() {
			tick := time.NewTicker(10 * time.Millisecond)
			defer tick.Stop()
			for {
				have, err := s.open(h).kernel()
				if err == nil {
					diff := overlay.Diff(want, have)
					if diff.Len() == 0 {
						settled[i] = Settled{h.Name, time.Since(start)}
						return
					}
					err = fmt.Errorf("%w: after %v the kernel of %s is %d entries off what the lab expects", ErrDiffers, within, h.Name, diff.Len())
				}
				select {
				case <-ctx.Done():
					errs[i] = err
					return
				case <-tick.C:
				}
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return settled, nil
}
