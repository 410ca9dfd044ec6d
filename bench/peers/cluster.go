package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/meshkv/meshkv/bench/peer"
)

// inOneProcess is the number of nodes from which on all are in one process.
const inOneProcess = 17

// A cluster is the nodes of one system in a network namespace of their own.
type cluster struct {
	sys   *system
	bin   string
	netns string
	log   string
	keys  int // that will be put, about; 0: not many
	nodes []place
	procs []*peer.Process
}

// place is where a node is.
type place struct {
	proc, index int
	spec        peer.NodeSpec
}

func ip(args ...string) error {
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %v: %w: %s", args, err, out)
	}
	return nil
}

// newCluster starts n nodes that all know of each other before it returns.
func newCluster(ctx context.Context, s *system, bin, netns string, n, keys int) (_ *cluster, err error) {
	c := &cluster{keys: keys, sys: s, bin: bin, netns: netns, log: filepath.Join(filepath.Dir(bin), s.name+".log")}
	if err := ip("netns", "add", netns); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			c.stop()
		}
	}()
	if err := ip("-n", netns, "link", "set", "lo", "up"); err != nil {
		return nil, err
	}
	per := 1
	if n >= inOneProcess {
		per = n
	}
	for len(c.nodes) < n {
		if err := c.add(per); err != nil {
			return nil, err
		}
	}
	return c, c.meet(ctx)
}

// add starts one more process with some nodes.
func (c *cluster) add(count int) error {
	p, err := peer.Run(c.netns, c.log, c.bin)
	if err != nil {
		return err
	}
	c.procs = append(c.procs, p)
	req := &peer.Request{Op: peer.OpStart}
	for i := range count {
		spec := peer.NodeSpec{Name: fmt.Sprintf("n%03d", len(c.nodes)+1), Addr: "127.0.0.1:" + strconv.Itoa(10_001+len(c.nodes)), Keys: c.keys}
		if len(c.nodes) > 0 {
			spec.Join = []string{c.nodes[0].spec.Addr}
		}
		c.nodes = append(c.nodes, place{proc: len(c.procs) - 1, index: i, spec: spec})
		req.Nodes = append(req.Nodes, spec)
	}
	_, err = p.Ask(req, time.Minute+time.Duration(count)*2*time.Second)
	return err
}

// meet waits until a key put at each node has been seen at every other.
func (c *cluster) meet(ctx context.Context) error {
	deadline := time.Now().Add(2*time.Minute + time.Duration(len(c.nodes))*2*time.Second)
	met := make([]bool, len(c.nodes))
	for try := 0; slices.Contains(met, false); try++ {
		if time.Now().After(deadline) {
			return fmt.Errorf("%s: the nodes have not met", c.sys.name)
		}
		for i := range c.nodes {
			if !met[i] {
				if _, err := c.put(i, &peer.Request{Prefix: fmt.Sprintf("meet/%d/%d/", i, try), Count: 1, Size: 8}, 30*time.Second); err != nil {
					return err
				}
			}
		}
		if err := pause(ctx, 2*c.sys.space); err != nil {
			return err
		}
		for i := range c.nodes {
			for t := 0; t <= try && !met[i]; t++ {
				seen, err := c.seen(peer.OpCount, fmt.Sprintf("meet/%d/%d/", i, t))
				if err != nil {
					return err
				}
				met[i] = !slices.ContainsFunc(seen, func(s peer.Seen) bool { return s.Count == 0 })
			}
		}
	}
	// What joining began (links that are not needed, full states, sessions) has ended then.
	return pause(ctx, 10*time.Second)
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *cluster) put(node int, req *peer.Request, limit time.Duration) (*peer.Reply, error) {
	at := c.nodes[node]
	req.Op, req.Node = peer.OpPut, at.index
	return c.procs[at.proc].Ask(req, limit)
}

// putAll puts count keys at every node at once and returns when each began.
func (c *cluster) putAll(req peer.Request, limit time.Duration) (map[string]int64, error) {
	puts := make(map[string]int64)
	if len(c.procs) != len(c.nodes) {
		return nil, errors.New("putAll needs a process for each node")
	}
	for i := range c.nodes {
		r := req
		r.Op, r.Prefix = peer.OpPut, fmt.Sprintf("%s%d/", req.Prefix, i)
		if err := c.procs[i].Send(&r); err != nil {
			return nil, err
		}
	}
	for i := range c.nodes {
		reply, err := c.procs[i].Receive(limit)
		if err != nil {
			return nil, err
		}
		for k, at := range reply.Puts {
			puts[k] = at
		}
	}
	return puts, nil
}

// ask asks all processes the same, at the same time.
func (c *cluster) ask(req *peer.Request) ([]*peer.Reply, error) {
	var replies []*peer.Reply
	for _, p := range c.procs {
		if err := p.Send(req); err != nil {
			return nil, err
		}
	}
	for _, p := range c.procs {
		r, err := p.Receive(time.Minute)
		if err != nil {
			return nil, err
		}
		replies = append(replies, r)
	}
	return replies, nil
}

func (c *cluster) seen(op, prefix string) ([]peer.Seen, error) {
	replies, err := c.ask(&peer.Request{Op: op, Prefix: prefix})
	var all []peer.Seen
	for _, r := range replies {
		all = append(all, r.Seen...)
	}
	return all, err
}

// await polls until every node has seen n keys with the prefix, or limit has
// passed. It returns when the last one came, and the share that has come.
func (c *cluster) await(ctx context.Context, prefix string, n int, limit time.Duration) (last int64, share float64, err error) {
	for deadline := time.Now().Add(limit); ; {
		seen, err := c.seen(peer.OpCount, prefix)
		if err != nil {
			return 0, 0, err
		}
		sum, last := 0, int64(0)
		for _, s := range seen {
			sum += s.Count
			last = max(last, s.Last)
		}
		if sum >= n*len(c.nodes) || time.Now().After(deadline) {
			return last, float64(sum) / float64(n*len(c.nodes)), nil
		}
		if err := pause(ctx, max(20*time.Millisecond, limit/1000)); err != nil {
			return 0, 0, err
		}
	}
}

// use is what all processes have used, and the bytes at the device.
func (c *cluster) use(gc bool) (sum peer.Usage, err error) {
	replies, err := c.ask(&peer.Request{Op: peer.OpUsage, GC: gc})
	for _, r := range replies {
		sum.CPUNs += r.Usage.CPUNs
		sum.RSSBytes += r.Usage.RSSBytes
		sum.Heap += r.Usage.Heap
		sum.NetBytes = max(sum.NetBytes, r.Usage.NetBytes)
	}
	return sum, err
}

// stats are the system's own counters, summed over all nodes.
func (c *cluster) stats() (map[string]int64, error) {
	replies, err := c.ask(&peer.Request{Op: peer.OpStats})
	sum := make(map[string]int64)
	for _, r := range replies {
		for _, s := range r.Stats {
			for k, v := range s {
				sum[k] += v
			}
		}
	}
	return sum, err
}

// stop ends every process and removes the namespace.
func (c *cluster) stop() {
	for _, p := range c.procs {
		p.Kill()
	}
	c.procs = nil
	if err := ip("netns", "del", c.netns); err != nil {
		fmt.Println("peers:", err)
	}
}
