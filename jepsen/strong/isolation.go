//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/meshkv/meshkv/client"
)

const (
	apart        = 4 * time.Second // how long the servers do not see each other
	strongWithin = 2 * time.Second // time of a strong call meanwhile
	answerMargin = time.Second     // that its answer may be late: the machine may be busy
)

// An isolation is servers that cannot see each other: at their first start, and later.
type isolation struct {
	c        *cluster
	progress io.Writer
	found    []string
	invalid  []string
}

// runIsolation starts servers that are cut off from each other, lets them meet, and cuts
// them off again. It needs namespaces.
func runIsolation(ctx context.Context, o options, progress io.Writer) (v *verdict, err error) {
	c, err := newCluster(3, true, o.binary, o.dir)
	defer func() { err = errors.Join(err, c.close()) }()
	if err != nil {
		return nil, err
	}
	x := &isolation{c: c, progress: progress}
	if err := x.firstStart(ctx, o.dir); err != nil {
		return nil, err
	}
	if err := x.quorumLost(ctx); err != nil {
		return nil, err
	}
	return &verdict{Bad: x.found, Invalid: x.invalid}, nil
}

func (x *isolation) bad(format string, args ...any) {
	if len(x.found) < maxShown {
		x.found = append(x.found, fmt.Sprintf(format, args...))
	}
}

// part cuts every server off from every other.
func (x *isolation) part() error {
	var groups [][]string
	for _, s := range x.c.nodes {
		groups = append(groups, []string{s.name})
	}
	return x.c.sw.Partition(groups...)
}

// heal ends the cut, which must have dropped something.
func (x *isolation) heal() error {
	d, cut, err := x.c.sw.Dropped()
	if err != nil {
		return err
	}
	fmt.Fprintf(x.progress, "%d packets dropped while all were apart\n", d.Packets)
	if !cut || d.Packets == 0 {
		x.invalid = append(x.invalid, "no packet was dropped: the servers were not apart")
	}
	return x.c.sw.Heal()
}

// firstStart starts servers that have never seen each other. None may begin anything alone;
// together they are one cluster.
func (x *isolation) firstStart(ctx context.Context, dir string) (err error) {
	if err := x.part(); err != nil {
		return err
	}
	for _, s := range x.c.nodes {
		if err := x.c.launch(s); err != nil {
			return err
		}
	}
	dialing, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for _, s := range x.c.nodes {
		if s.client, err = x.c.dial(dialing, s); err != nil {
			return err
		}
	}
	until := time.Now().Add(apart)
	for time.Now().Before(until) && ctx.Err() == nil {
		for _, s := range x.c.nodes {
			attempt, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
			info, err := s.client.StrongInfo(attempt, "_system")
			if err == nil {
				x.bad("%s alone knows a system group: %+v", s.name, info)
			}
			if err := s.client.CreateKeyspace(attempt, client.KeyspaceSpec{Name: keyspaceName, Mode: "strong"}); err == nil {
				x.bad("%s alone created a strong keyspace", s.name)
			}
			cancel()
		}
		pause(ctx, 50*time.Millisecond)
	}
	for _, s := range x.c.nodes {
		if id, err := clusterID(dir, s.name); err != nil || id != "" {
			x.bad("%s alone has a cluster id: %q, %v", s.name, id, err)
		}
	}
	if err := x.heal(); err != nil {
		return err
	}
	begin := time.Now()
	if err := x.c.create(dialing, keyspaceName); err != nil {
		return err
	}
	fmt.Fprintf(x.progress, "met, and serving the keyspace, %v after the cut\n", time.Since(begin).Round(time.Millisecond))
	ids := make(map[string]bool)
	for _, s := range x.c.nodes {
		id, err := clusterID(dir, s.name)
		if err != nil || id == "" {
			x.bad("%s has no cluster id: %v", s.name, err)
		}
		ids[id] = true
	}
	if len(ids) != 1 {
		x.bad("%d cluster ids", len(ids))
	}
	return nil
}

// clusterID is the id that a server has on its disk; empty: none yet.
func clusterID(dir, server string) (string, error) {
	text, err := os.ReadFile(filepath.Join(dir, server, "data", "strong", "server.json"))
	if err != nil {
		return "", err
	}
	var id struct{ Cluster string }
	err = json.Unmarshal(text, &id)
	return id.Cluster, err
}

// quorumLost cuts all off from each other: strong calls end with their errors in time,
// eventual keyspaces serve as ever.
func (x *isolation) quorumLost(ctx context.Context) error {
	if err := x.part(); err != nil {
		return err
	}
	var mu sync.Mutex // protects the fields below and x
	refused := make(map[string]bool)
	ends := make(map[string]int)
	eventual := 0
	working, cancel := context.WithTimeout(ctx, 2*apart)
	defer cancel()
	var wg sync.WaitGroup
	for _, s := range x.c.nodes {
		strong, err := s.client.Strong(ctx, keyspaceName)
		if err != nil {
			return err
		}
		free, err := s.client.Keyspace(ctx, "free")
		if err != nil {
			return err
		}
		wg.Go(func() {
			for n := 0; working.Err() == nil; n++ {
				key, begin := fmt.Sprintf("q/%s/%d", s.name, n), time.Now()
				attempt, cancel := context.WithTimeout(ctx, strongWithin)
				_, err := strong.Put(attempt, key, []byte("x"), nil)
				cancel()
				took := time.Since(begin)
				mu.Lock()
				switch {
				case err == nil:
					x.bad("%s alone acknowledged a write %v after the cut", s.name, took)
				case errors.Is(err, client.ErrUnknownOutcome):
					ends["unknown"]++
				case errors.Is(err, client.ErrNoQuorum):
					ends["no quorum"]++
					refused[key] = true
				default:
					x.bad("a write at %s without quorum: %v, want ErrNoQuorum or ErrUnknownOutcome", s.name, err)
				}
				if took > strongWithin+answerMargin {
					x.bad("a write at %s took %v, its time was %v", s.name, took, strongWithin)
				}
				mu.Unlock()
			}
		})
		wg.Go(func() {
			for n := 0; working.Err() == nil; n++ {
				key, value := fmt.Sprintf("f/%s", s.name), fmt.Sprint(n)
				attempt, cancel := context.WithTimeout(ctx, strongWithin)
				_, err := free.Put(attempt, key, []byte(value), nil)
				if err == nil {
					var e client.Entry
					if e, err = free.Get(attempt, key, nil); err == nil && string(e.Value) != value {
						err = fmt.Errorf("read %q after writing %q", e.Value, value)
					}
				}
				cancel()
				mu.Lock()
				eventual++
				if err != nil {
					x.bad("the eventual keyspace at %s: %v", s.name, err)
				}
				mu.Unlock()
				pause(working, 10*time.Millisecond)
			}
		})
	}
	wg.Wait()
	if err := x.heal(); err != nil {
		return err
	}
	fmt.Fprintf(x.progress, "without quorum: writes ended %v, %d rounds at eventual keyspaces\n", ends, eventual)
	if len(ends) == 0 || eventual == 0 {
		x.invalid = append(x.invalid, "nothing was tried without quorum")
	}
	serving, cancelServing := context.WithTimeout(ctx, 30*time.Second)
	defer cancelServing()
	if err := x.c.awaitServing(serving, keyspaceName); err != nil {
		return err
	}
	h, err := x.c.nodes[0].client.Strong(ctx, keyspaceName)
	if err != nil {
		return err
	}
	for e, err := range h.List(serving, "q/", nil) {
		if err != nil {
			return err
		}
		if refused[e.Key] {
			x.bad("%s was written: its writer was told ErrNoQuorum", e.Key)
		}
	}
	return nil
}
