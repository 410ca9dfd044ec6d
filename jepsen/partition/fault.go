//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os/exec"
	"slices"
	"strings"

	"github.com/meshkv/meshkv/examples/overlay/netlab"
)

const faultTable = "partition_fault"

// A fault drops some of the frames between ports of a switch.
type fault struct {
	cut   [][2]string // from port, to port
	match string      // which of the frames, in nftables' words; "" is all
}

// counted is what passed between the ports of a fault since it began, in both
// directions of every pair: the proof that the fault was real, and that it was
// no more than it should be.
type counted struct{ Dropped, Passed uint64 }

// share is the part that was dropped, 0 to 1.
func (c counted) share() float64 { return float64(c.Dropped) / float64(max(1, c.Dropped+c.Passed)) }

// rules is the nft input that makes f and replaces any earlier fault.
func (f fault) rules() (string, error) {
	if len(f.cut) == 0 {
		return "", fmt.Errorf("a fault between no ports")
	}
	var cut, between []string
	for _, p := range f.cut {
		for _, port := range p {
			if port == "" || strings.ContainsAny(port, "\"\\ \n") {
				return "", fmt.Errorf("%q is no port", port)
			}
		}
		cut = append(cut, fmt.Sprintf("%q . %q", p[0], p[1]))
		between = append(between, fmt.Sprintf("%q . %q", p[0], p[1]), fmt.Sprintf("%q . %q", p[1], p[0]))
	}
	slices.Sort(between)
	var b strings.Builder
	b.WriteString(noFault())
	fmt.Fprintf(&b, "table bridge %s {\n\tcounter dropped { }\n\tcounter passed { }\n", faultTable)
	fmt.Fprintf(&b, "\tset cut { type ifname . ifname; elements = { %s } }\n", strings.Join(cut, ", "))
	fmt.Fprintf(&b, "\tset between { type ifname . ifname; elements = { %s } }\n", strings.Join(slices.Compact(between), ", "))
	b.WriteString("\tchain forward {\n\t\ttype filter hook forward priority 0; policy accept;\n")
	fmt.Fprintf(&b, "\t\tiifname . oifname @cut %s counter name \"dropped\" drop\n", f.match)
	b.WriteString("\t\tiifname . oifname @between counter name \"passed\"\n\t}\n}\n")
	return b.String(), nil
}

// noFault is nft input that removes the table whether or not it is there.
func noFault() string {
	return fmt.Sprintf("add table bridge %s\ndelete table bridge %s\n", faultTable, faultTable)
}

// inflict begins f in one transaction.
func inflict(sw netlab.Switch, f fault) error {
	rules, err := f.rules()
	if err != nil {
		return err
	}
	_, err = nft(sw, rules, "-f", "-")
	return err
}

// relieve ends the fault and forgets its counters.
func relieve(sw netlab.Switch) error {
	_, err := nft(sw, noFault(), "-f", "-")
	return err
}

// count reads the counters of the present fault.
func count(sw netlab.Switch) (counted, error) {
	out, err := nft(sw, "", "-j", "list", "counters", "table", "bridge", faultTable)
	if err != nil {
		return counted{}, err
	}
	return parseCounted(out)
}

func parseCounted(listing []byte) (c counted, err error) {
	var doc struct {
		Objects []struct {
			Counter *struct {
				Name    string
				Packets uint64
			}
		} `json:"nftables"`
	}
	if err := json.Unmarshal(listing, &doc); err != nil {
		return c, fmt.Errorf("nft listing: %w", err)
	}
	found := 0
	for _, o := range doc.Objects {
		switch {
		case o.Counter == nil:
			continue
		case o.Counter.Name == "dropped":
			c.Dropped = o.Counter.Packets
		case o.Counter.Name == "passed":
			c.Passed = o.Counter.Packets
		}
		found++
	}
	if found != 2 {
		return c, fmt.Errorf("nft listing: %d counters instead of 2", found)
	}
	return c, nil
}

// nft runs nft inside the switch's namespace.
func nft(sw netlab.Switch, stdin string, args ...string) ([]byte, error) {
	var out, complaint bytes.Buffer
	err := sw.Do(func() error {
		cmd := exec.Command("nft", args...)
		cmd.Stdin = strings.NewReader(stdin)
		cmd.Stdout, cmd.Stderr = &out, &complaint
		return cmd.Run()
	})
	if err != nil {
		return nil, fmt.Errorf("nft: %w: %s", err, bytes.TrimSpace(complaint.Bytes()))
	}
	return out.Bytes(), nil
}
