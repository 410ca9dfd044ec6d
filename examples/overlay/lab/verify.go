//go:build linux

package lab

import (
	"context"
	"fmt"
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
			if v.Want, v.Err = s.open(h).store(ctx); v.Err == nil {
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

// expected is what the kernel of the host self should hold when everyone in
// sight of it is known to it: the lab's own truth, beside the store's.
func (s *State) expected(self string) overlay.Tables {
	visible := map[string]bool{}
	var nodes []overlay.Node
	for _, h := range s.Live() {
		if h.Name == self || s.connected(self, h.Name) {
			visible[h.Name] = true
			nodes = append(nodes, h.Node())
		}
	}
	var endpoints []overlay.Endpoint
	for _, c := range s.Containers {
		if visible[c.Host] {
			endpoints = append(endpoints, c.Endpoint())
		}
	}
	want, _ := overlay.Desired(self, VNI, nodes, endpoints)
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
