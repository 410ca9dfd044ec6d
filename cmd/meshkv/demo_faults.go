package main

import (
	"time"

	"github.com/meshkv/meshkv/gossip/faultnet"
)

// Faults are the state of a demo's network: a partition into two sides, nodes
// that have fallen silent, and a latency. Not safe for concurrent use.
type faults struct {
	net    *faultnet.Network
	sides  [][]string
	silent map[string]bool
}

func newFaults() *faults {
	return &faults{net: faultnet.New(uint64(time.Now().UnixNano())), silent: map[string]bool{}}
}

// isolate makes a node fall silent, restore undoes it.
func (f *faults) isolate(name string) error {
	f.silent[name] = true
	return f.apply()
}

func (f *faults) restore(name string) error {
	delete(f.silent, name)
	return f.apply()
}

// partition replaces the partition that there was; no sides are none.
func (f *faults) partition(sides ...[]string) error {
	f.sides = sides
	return f.apply()
}

// apply sets the groups: the sides, and each silent node by itself.
func (f *faults) apply() error {
	var groups [][]string
	for _, side := range f.sides {
		var heard []string
		for _, name := range side {
			if !f.silent[name] {
				heard = append(heard, name)
			}
		}
		groups = append(groups, heard)
	}
	for name := range f.silent {
		groups = append(groups, []string{name})
	}
	return f.net.Partition(groups...)
}

// heal ends the partition and the latency. Silent nodes stay so.
func (f *faults) heal() error {
	f.net.SetLatency(0)
	return f.partition()
}
