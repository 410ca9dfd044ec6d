package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/meshkv/meshkv/bench/peer/voter"
)

// A system is one of those that are compared.
type system struct {
	name    string
	module  string // folder of its module, relative to bench/
	pkg     string // of its server
	config  string // what was set, for the readers of the table
	args    func(voter.Spec) []string
	connect func(context.Context, []voter.Spec) (store, error)
}

// ours is the name of the system that the others are compared with.
const ours = "meshkv"

var systems = []system{
	{
		name: ours, module: "..", pkg: "./cmd/meshkv", args: meshkvArgs, connect: connectMeshkv,
		config: "meshkv agent --server, else the defaults (election 500 ms); a strong keyspace with 3 voters; client.Dial, one client for each agent; locks with a session for each client",
	},
	{
		name: "etcd", module: "quorum", pkg: "./etcd", args: voter.Spec.Args, connect: connectEtcd,
		config: "etcd v3.7.3, embed's defaults (heartbeat 100 ms, election 1 s); clientv3, one client for each member; locks by its concurrency package, a session for each client",
	},
	{
		name: "NATS", module: "quorum", pkg: "./nats", args: voter.Spec.Args, connect: connectNATS,
		config: "nats-server v2.15.2, JetStream key-value buckets with 3 replicas and `sync_interval: always`; reads are those of the stream's leader, which asks no majority; it has no locks",
	},
	{
		name: "raft", module: ".", pkg: "./rawraft", args: voter.Spec.Args, connect: connectRaft,
		config: "hashicorp/raft v1.8.0 and raft-boltdb v2.3.0 under a map and a binary protocol, clients at the leader; BatchApplyCh, MaxAppendEntries 512, else the defaults (election 1 s); reads after VerifyLeader; it has no locks",
	},
}

// build compiles the server of s into dir and returns its path.
func (s *system) build(ctx context.Context, dir string) (string, error) {
	bin := filepath.Join(dir, "bin-"+s.name)
	cmd := exec.CommandContext(ctx, "go", "build", "-o", bin, s.pkg)
	cmd.Dir = s.module
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("build %s: %w", s.name, err)
	}
	return bin, nil
}
