package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// A system is one of those that are compared.
type system struct {
	name   string
	module string // folder of its module, relative to bench/
	pkg    string // of its program
	config string // what was set, for the readers of the tables
	stores bool   // it keeps a state that a late node can get
	space  time.Duration
	burst  time.Duration // the longest wait for a burst
}

// systems are all of them, ours first.
var systems = []system{
	{
		name: "meshkv", module: ".", pkg: "./meshkv", stores: true, space: 50 * time.Millisecond, burst: time.Minute,
		config: "node.Config with Name, Bind, Join; HTTP off; in memory; everything else default",
	},
	{
		name: "NetworkDB", module: "rivals", pkg: "./networkdb", stores: true, space: time.Second, burst: 120 * time.Second,
		config: "libnetwork/networkdb v28.5.2, DefaultConfig with addresses; one network, one table; CreateEntry, Watch",
	},
	{
		name: "dskit", module: "dskit", pkg: ".", stores: true, space: 700 * time.Millisecond, burst: 120 * time.Second,
		config: "dskit kv/memberlist v0.0.0-20260703122047 with the memberlist fork that its go.mod names, defaults of its flags; one value a key; CAS, WatchPrefix",
	},
	{
		name: "serf", module: "rivals", pkg: "./serf", space: 700 * time.Millisecond, burst: 60 * time.Second,
		config: "serf v0.11.0, DefaultConfig (LAN); a put is a user event, not coalesced; no state",
	},
}

// build compiles the program of s into dir and returns its path.
func (s *system) build(ctx context.Context, dir string) (string, error) {
	bin := filepath.Join(dir, s.name)
	cmd := exec.CommandContext(ctx, "go", "build", "-o", bin, s.pkg)
	cmd.Dir = s.module
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("build %s: %w", s.name, err)
	}
	return bin, nil
}
