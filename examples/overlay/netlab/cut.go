//go:build linux

package netlab

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
)

const cutTable = "netlab_cut"

// A Dropped counts what a partition has dropped: the proof that it was real.
type Dropped struct{ Packets, Bytes uint64 }

// Partition cuts the switch so that only ports of one group reach each other,
// in one nftables transaction that replaces any earlier cut. A port in no
// group reaches everyone. Groups must not overlap.
func (s Switch) Partition(groups ...[]string) error {
	rules, err := cutRules(groups)
	if err != nil {
		return err
	}
	if _, err := s.nft(rules, "-f", "-"); err != nil {
		return fmt.Errorf("partition %s: %w", s.Name, err)
	}
	return nil
}

// Heal removes the cut and its counters. It is no error if there is none.
func (s Switch) Heal() error {
	if _, err := s.nft(dropTable(), "-f", "-"); err != nil {
		return fmt.Errorf("heal %s: %w", s.Name, err)
	}
	return nil
}

// Dropped returns what the present cut has dropped; ok is false if there is
// no cut.
func (s Switch) Dropped() (d Dropped, ok bool, err error) {
	out, err := s.nft("", "-j", "list", "ruleset")
	if err != nil {
		return d, false, fmt.Errorf("read counters of %s: %w", s.Name, err)
	}
	d, ok, err = parseDropped(out)
	if err != nil {
		return d, false, fmt.Errorf("read counters of %s: %w", s.Name, err)
	}
	return d, ok, nil
}

// nft runs nft inside the switch's namespace.
func (s Switch) nft(stdin string, args ...string) ([]byte, error) {
	var out, complaint bytes.Buffer
	err := s.Do(func() error {
		cmd := exec.Command("nft", args...)
		cmd.Stdin = strings.NewReader(stdin)
		cmd.Stdout, cmd.Stderr = &out, &complaint
		return cmd.Run()
	})
	if errors.Is(err, exec.ErrNotFound) {
		return nil, fmt.Errorf("%w: nft is not installed (package nftables)", ErrUnsupported)
	}
	if err != nil {
		return nil, fmt.Errorf("nft: %w: %s", err, bytes.TrimSpace(complaint.Bytes()))
	}
	return out.Bytes(), nil
}

// dropTable is nft input that removes the table whether or not it is there:
// adding an existing table changes nothing.
func dropTable() string {
	return fmt.Sprintf("add table bridge %s\ndelete table bridge %s\n", cutTable, cutTable)
}

// cutRules is the nft input for Partition.
func cutRules(groups [][]string) (string, error) {
	side := map[string]int{}
	for i, g := range groups {
		for _, port := range g {
			if _, twice := side[port]; twice {
				return "", fmt.Errorf("partition: %s is in two groups", port)
			}
			if port == "" || strings.ContainsAny(port, "\"\\ \n") {
				return "", fmt.Errorf("partition: %q is no port", port)
			}
			side[port] = i
		}
	}
	var pairs []string
	for a, i := range side {
		for b, j := range side {
			if i != j {
				pairs = append(pairs, fmt.Sprintf("%q . %q", a, b))
			}
		}
	}
	if len(pairs) == 0 {
		return "", errors.New("partition: fewer than two groups with ports")
	}
	slices.Sort(pairs)
	var b strings.Builder
	b.WriteString(dropTable())
	fmt.Fprintf(&b, "table bridge %s {\n", cutTable)
	fmt.Fprintf(&b, "\tset pairs { type ifname . ifname; elements = { %s } }\n", strings.Join(pairs, ", "))
	b.WriteString("\tchain forward {\n\t\ttype filter hook forward priority 0; policy accept;\n")
	b.WriteString("\t\tiifname . oifname @pairs counter drop\n\t}\n}\n")
	return b.String(), nil
}

// parseDropped sums the counters of the cut's table in nft's JSON listing.
func parseDropped(listing []byte) (d Dropped, ok bool, err error) {
	var doc struct {
		Objects []struct {
			Rule *struct {
				Table string
				Expr  []struct{ Counter *Dropped }
			}
		} `json:"nftables"`
	}
	if err := json.Unmarshal(listing, &doc); err != nil {
		return d, false, fmt.Errorf("nft listing: %w", err)
	}
	for _, o := range doc.Objects {
		if o.Rule == nil || o.Rule.Table != cutTable {
			continue
		}
		for _, e := range o.Rule.Expr {
			if e.Counter != nil {
				d.Packets += e.Counter.Packets
				d.Bytes += e.Counter.Bytes
				ok = true
			}
		}
	}
	return d, ok, nil
}
