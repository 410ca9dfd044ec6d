//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"sort"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/meshkv/meshkv/examples/overlay/lab"
)

// printVerdicts prints one line a host and one a difference, and one of the leases.
func printVerdicts(w io.Writer, verdicts []lab.Verdict, leases lab.LeaseCheck) error {
	bad := 0
	for _, v := range verdicts {
		switch {
		case v.Err != nil:
			fmt.Fprintf(w, "%s: unreadable: %v\n", v.Host, v.Err)
		case v.OK():
			fmt.Fprintf(w, "%s: kernel = store: %d forwards, %d neighbours\n", v.Host, len(v.Want.Forwards), len(v.Want.Neighbours))
		default:
			fmt.Fprintf(w, "%s: kernel and store differ in %d entries\n", v.Host, v.Differ.Len())
			for _, f := range v.Differ.SetForward {
				fmt.Fprintf(w, "  missing forward %s to %s\n", f.MAC, f.VTEP)
			}
			for _, f := range v.Differ.DropForward {
				fmt.Fprintf(w, "  stale forward %s to %s\n", f.MAC, f.VTEP)
			}
			for _, n := range v.Differ.SetNeighbour {
				fmt.Fprintf(w, "  missing or wrong neighbour %s, should be %s\n", n.IP, n.MAC)
			}
			for _, n := range v.Differ.DropNeighbour {
				fmt.Fprintf(w, "  stale neighbour %s, is %s\n", n.IP, n.MAC)
			}
		}
		if v.Cut != nil {
			fmt.Fprintf(w, "  it cannot read ipam; by what its agent saw last: %v\n", v.Cut)
		}
		if !v.OK() {
			bad++
		}
	}
	if leases.Err == nil {
		fmt.Fprintf(w, "ipam: %d leases, no two overlap; %d moves\n", leases.Leases, leases.Moves)
	} else {
		fmt.Fprintf(w, "ipam: %v\n", leases.Err)
	}
	if bad > 0 {
		return fmt.Errorf("%w: kernel and store differ on %d of %d hosts", lab.ErrDiffers, bad, len(verdicts))
	}
	if leases.Err != nil {
		return fmt.Errorf("%w: the leases are not known to be disjoint", lab.ErrDiffers)
	}
	return nil
}

// printPings prints a matrix: rows ping columns.
func printPings(w io.Writer, pings []lab.Ping) error {
	var from, to []string
	cell := map[string]string{}
	seen := map[string]bool{}
	replies, silent, bad := 0, 0, 0
	var slowest time.Duration
	var first error
	for _, p := range pings {
		if !seen["from "+p.From] {
			from = append(from, p.From)
			seen["from "+p.From] = true
		}
		if !seen["to "+p.To] {
			to = append(to, p.To)
			seen["to "+p.To] = true
		}
		mark := "."
		switch {
		case p.Err != nil:
			mark = "ERR"
			if first == nil {
				first = p.Err
			}
		case p.Replied && p.Expected:
			mark = "ok"
		case p.Replied:
			mark = "OK?!"
		case p.Expected:
			mark = "LOST"
		}
		if p.Replied {
			replies++
			slowest = max(slowest, p.RTT)
		} else {
			silent++
		}
		if !p.OK() {
			bad++
		}
		cell[p.From+" "+p.To] = mark
	}
	sort.Strings(to)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "\t%s\n", strings.Join(to, "\t"))
	for _, f := range from {
		row := []string{f}
		for _, x := range to {
			row = append(row, cell[f+" "+x])
		}
		fmt.Fprintln(t, strings.Join(row, "\t"))
	}
	t.Flush()
	fmt.Fprintf(w, "%d replies, slowest %v; %d silent; %d not as expected\n", replies, slowest.Round(10*time.Microsecond), silent, bad)
	switch {
	case first != nil:
		return first
	case bad > 0:
		return fmt.Errorf("%w: %d pings not as expected", lab.ErrDiffers, bad)
	case len(pings) == 0:
		return fmt.Errorf("%w: no live host has a container", lab.ErrDiffers)
	}
	return nil
}

func printStatus(ctx context.Context, w io.Writer, s *lab.State) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "HOST\tPID\tSTATE\tVTEP\tLEASE\tSEES\tNODES\tENDPOINTS\tFORWARDS\tPROGRAMMED\tREPAIRED\tDIGEST")
	var sick error
	for _, h := range s.Hosts {
		st, err := s.HostStatus(ctx, h)
		if err != nil && sick == nil {
			sick = err
		}
		r := st.Report
		lease := "-"
		if r.Lease.Token > 0 {
			lease = fmt.Sprintf("%v#%d", r.Lease.Prefix, r.Lease.Token)
		}
		fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%s\t%s\t%d\t%d\t%d\t%d\t%d\t%.12s\n", h.Name, h.Agent.PID, st.State, h.VTEP, lease,
			strings.Join(st.Sees, ","), r.Nodes, r.Endpoints, r.Forwards, r.Programmed, r.Repaired, st.Digest)
	}
	t.Flush()
	fmt.Fprintln(w)
	t = tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "CONTAINER\tHOST\tIP\tMAC\tMOVED")
	for _, c := range s.Containers {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%d\n", c.Name, c.Host, c.IP, c.MAC, c.Token)
	}
	t.Flush()
	if len(s.Groups) > 0 {
		d, _, err := s.Switch().Dropped()
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "\npartition %v: %d packets dropped\n", s.Groups, d.Packets)
	}
	return sick
}
