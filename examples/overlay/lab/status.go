//go:build linux

package lab

import (
	"context"
	"sort"

	"github.com/meshkv/meshkv/examples/overlay"
)

// A HostStatus is what a host's agent and node say about themselves.
type HostStatus struct {
	State  string // "up", "dead" (its agent), "gone" (its namespace too), or "sick" (it does not answer)
	Sees   []string
	Digest string // of the endpoints
	Report overlay.Report
}

// HostStatus asks a host. The error is of a host that runs and does not
// answer; its state is "sick".
func (s *State) HostStatus(ctx context.Context, h Host) (HostStatus, error) {
	st := HostStatus{State: "up"}
	switch {
	case h.Removed:
		st.State = "gone"
		return st, nil
	case !h.Agent.Alive():
		st.State = "dead"
		return st, nil
	}
	var err error
	open := s.open(h)
	if st.Report, err = open.report(ctx); err == nil {
		st.Digest, err = open.digest(ctx, overlay.EndpointsKeyspace)
	}
	var members map[string]string
	if err == nil {
		members, err = open.members(ctx)
	}
	if err != nil {
		st.State = "sick"
		return st, err
	}
	for name, status := range members {
		if name != h.Name && status == "alive" {
			st.Sees = append(st.Sees, name)
		}
	}
	sort.Strings(st.Sees)
	return st, nil
}
