package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/meshkv/meshkv/bench/peer"
)

// A figure is one measured number of one run. Runs of one name and unit are
// summed up by their median.
type figure struct {
	name  string
	value float64
	unit  string
}

// valueBytes is the size of all values.
const valueBytes = 100

// A scenario measures one run of one system.
type scenario struct {
	name  string
	nodes int
	keys  int // that are put, if very many
	run   func(ctx context.Context, c *cluster) ([]figure, error)
	// skip says why a system is left out, or nothing.
	skip func(s *system) string
	// rounds bounds the rounds of a system whose runs are long.
	rounds func(s *system, rounds int) int
}

func everybody(*system) string { return "" }

func storing(s *system) string {
	if !s.stores {
		return "keeps no state"
	}
	return ""
}

func ours(s *system) string {
	if s.name != "meshkv" {
		return "not compared"
	}
	return ""
}

func all(_ *system, rounds int) int { return rounds }

// few is for runs that take minutes with the others.
func few(s *system, rounds int) int {
	if s.name == "meshkv" {
		return rounds
	}
	return min(rounds, 1)
}

func scenarios() []scenario {
	var list []scenario
	for _, n := range []int{3, 16, 64} {
		list = append(list, scenario{name: fmt.Sprintf("propagation-%d", n), nodes: n, run: propagation, skip: everybody, rounds: all})
	}
	for _, n := range []int{3, 16} {
		for _, puts := range []int{1_000, 10_000} {
			list = append(list, scenario{
				name: fmt.Sprintf("burst-%d-%d", n, puts), nodes: n, skip: everybody, rounds: few,
				run: func(ctx context.Context, c *cluster) ([]figure, error) { return burst(ctx, c, puts) },
			})
		}
	}
	for _, rate := range []int{10, 100, 1_000, 5_000, 10_000} {
		length := 20 * time.Second
		skip := everybody
		if rate == 5_000 {
			length, skip = time.Minute, ours
		}
		list = append(list, scenario{
			name: fmt.Sprintf("sustained-16-%d", rate), nodes: 16, skip: skip, rounds: few,
			keys: rate * int(length/time.Second),
			run:  func(ctx context.Context, c *cluster) ([]figure, error) { return sustained(ctx, c, rate, length) },
		})
	}
	for _, keys := range []int{10_000, 100_000} {
		skip := func(s *system) string {
			if s.name == "NetworkDB" && keys > 10_000 {
				return "cannot be loaded with so many keys in minutes"
			}
			return storing(s)
		}
		list = append(list, scenario{
			name: fmt.Sprintf("join-%d", keys), nodes: 3, skip: skip, rounds: func(s *system, rounds int) int {
				if s.name == "NetworkDB" {
					return min(rounds, 1)
				}
				return rounds
			},
			run: func(ctx context.Context, c *cluster) ([]figure, error) { return join(ctx, c, keys) },
		})
	}
	for _, keys := range []int{0, 10_000, 100_000} {
		skip := func(s *system) string {
			if s.name == "NetworkDB" && keys > 10_000 {
				return "cannot be loaded with so many keys in minutes"
			}
			return storing(s)
		}
		list = append(list, scenario{
			name: fmt.Sprintf("idle-%d", keys), nodes: 3, skip: skip, rounds: few,
			run: func(ctx context.Context, c *cluster) ([]figure, error) { return idle(ctx, c, keys) },
		})
	}
	list = append(list, scenario{name: "copies-64", nodes: 64, run: copies, skip: ours, rounds: all})
	return list
}

// propagation: spaced puts at one node, and when the last other one has seen each.
func propagation(ctx context.Context, c *cluster) ([]figure, error) {
	puts := 200
	if c.sys.name != "meshkv" {
		puts = 30
	}
	reply, err := c.put(0, &peer.Request{Prefix: "p/", Count: puts, Size: valueBytes, Every: int64(c.sys.space)}, time.Duration(puts)*c.sys.space+time.Minute)
	if err != nil {
		return nil, err
	}
	if _, _, err := c.await(ctx, "p/", puts, 30*time.Second); err != nil {
		return nil, err
	}
	lags, missing, err := c.lags("p/", reply.Puts)
	if err != nil {
		return nil, err
	}
	return []figure{
		{"last node p50", quantile(lags, 0.50), "ms"},
		{"last node p99", quantile(lags, 0.99), "ms"},
		{"last node max", quantile(lags, 1), "ms"},
		{"puts that some node missed", float64(missing), ""},
	}, nil
}

// lags are, of each put, the ms until the last node had it, ascending, and the
// number of puts that some node has not seen.
func (c *cluster) lags(prefix string, puts map[string]int64) (lags []float64, missing int, err error) {
	seen, err := c.seen(peer.OpArrivals, prefix)
	if err != nil {
		return nil, 0, err
	}
	for key, at := range puts {
		last := int64(0)
		for _, s := range seen {
			arrived, ok := s.Arrivals[key]
			if !ok {
				last = -1
				break
			}
			last = max(last, arrived)
		}
		if last < 0 {
			missing++
			continue
		}
		lags = append(lags, float64(last-at)/1e6)
	}
	slices.Sort(lags)
	return lags, missing, nil
}

// quantile of ascending values; 0 of none.
func quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

// burst: puts as fast as one node takes them, until all nodes have all.
func burst(ctx context.Context, c *cluster, puts int) ([]figure, error) {
	before, err := c.use(false)
	if err != nil {
		return nil, err
	}
	begin := time.Now().UnixNano()
	if _, err := c.put(0, &peer.Request{Prefix: "b/", Count: puts, Size: valueBytes}, 3*time.Minute); err != nil {
		return nil, err
	}
	last, share, err := c.await(ctx, "b/", puts, c.sys.burst)
	if err != nil {
		return nil, err
	}
	after, err := c.use(false)
	if err != nil {
		return nil, err
	}
	return []figure{
		{"until the last arrival", float64(last-begin) / 1e9, "s"},
		{"arrived", 100 * share, "%"},
		{"bytes at the device", float64(after.NetBytes-before.NetBytes) / 1e6, "MB"},
		{"CPU of all nodes", float64(after.CPUNs-before.CPUNs) / 1e9, "s"},
	}, nil
}

// sustained: rate puts a second in all, spread over the nodes.
func sustained(ctx context.Context, c *cluster, rate int, length time.Duration) ([]figure, error) {
	before, err := c.use(false)
	if err != nil {
		return nil, err
	}
	counted, err := c.stats()
	if err != nil {
		return nil, err
	}
	each := max(1, rate*int(length/time.Second)/len(c.nodes))
	every := length / time.Duration(each)
	puts, err := c.putAll(peer.Request{Prefix: "s/", Count: each, Size: valueBytes, Every: int64(every)}, length+2*time.Minute)
	if err != nil {
		return nil, err
	}
	if _, _, err = c.await(ctx, "s/", each*len(c.nodes), min(c.sys.burst, 30*time.Second)); err != nil {
		return nil, err
	}
	after, err := c.use(false)
	if err != nil {
		return nil, err
	}
	lags, missing, err := c.lags("s/", puts)
	if err != nil {
		return nil, err
	}
	figures := []figure{
		{"last node p50", quantile(lags, 0.50), "ms"},
		{"last node p99", quantile(lags, 0.99), "ms"},
		{"puts that all nodes have", 100 * float64(len(lags)) / float64(len(lags)+missing), "%"},
		{"CPU of all nodes", float64(after.CPUNs-before.CPUNs) / 1e9, "s"},
		{"bytes at the device", float64(after.NetBytes-before.NetBytes) / 1e6, "MB"},
	}
	if c.sys.name == "meshkv" {
		now, err := c.stats()
		if err != nil {
			return nil, err
		}
		delta := func(name string) float64 { return float64(now[name] - counted[name]) }
		pushed := float64(len(puts) * (len(c.nodes) - 1))
		figures = append(figures,
			figure{"ops left to sessions", pushed - delta("OpsApplied"), ""},
			figure{"copies of an op a node", (delta("OpsApplied") + delta("OpsDuplicate")) / pushed, ""},
			figure{"sessions", delta("SessionsDone"), ""},
		)
	}
	return figures, nil
}

// fillKeys puts keys at the first node, slowly enough for the system to keep up.
func fillKeys(ctx context.Context, c *cluster, keys int) error {
	if keys == 0 {
		return nil
	}
	if _, err := c.put(0, &peer.Request{Prefix: "k/", Count: keys, Size: valueBytes}, 5*time.Minute); err != nil {
		return err
	}
	limit := 5 * time.Minute
	_, share, err := c.await(ctx, "k/", keys, limit)
	if err == nil && share < 1 {
		return fmt.Errorf("%s: only %.1f %% of the keys arrived within %s", c.sys.name, 100*share, limit)
	}
	return err
}

// join: from the start of a node, its process running, until it has all keys.
func join(ctx context.Context, c *cluster, keys int) ([]figure, error) {
	if err := fillKeys(ctx, c, keys); err != nil {
		return nil, err
	}
	if err := pause(ctx, 3*time.Second); err != nil {
		return nil, err
	}
	before, err := c.use(false)
	if err != nil {
		return nil, err
	}
	begin := time.Now()
	if err := c.add(1); err != nil {
		return nil, err
	}
	newest := c.procs[len(c.procs)-1]
	for deadline := time.Now().Add(2 * time.Minute); ; {
		reply, err := newest.Ask(&peer.Request{Op: peer.OpCount, Prefix: "k/"}, time.Minute)
		if err != nil {
			return nil, err
		}
		if seen := reply.Seen[0]; seen.Count >= keys {
			after, err := c.use(false)
			return []figure{
				{"until all keys are there", float64(seen.Last-begin.UnixNano()) / 1e6, "ms"},
				{"bytes at the device", float64(after.NetBytes-before.NetBytes) / 1e6, "MB"},
			}, err
		}
		if time.Now().After(deadline) {
			return []figure{{"keys that came", float64(reply.Seen[0].Count), ""}}, nil
		}
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

// idle: a minute in which nothing is written.
func idle(ctx context.Context, c *cluster, keys int) ([]figure, error) {
	empty, err := c.use(true)
	if err != nil {
		return nil, err
	}
	if err := fillKeys(ctx, c, keys); err != nil {
		return nil, err
	}
	if _, err := c.ask(&peer.Request{Op: peer.OpForget, Prefix: ""}); err != nil {
		return nil, err
	}
	if err := pause(ctx, 75*time.Second); err != nil { // what the writing began ends
		return nil, err
	}
	before, err := c.use(true)
	if err != nil {
		return nil, err
	}
	if err := pause(ctx, time.Minute); err != nil {
		return nil, err
	}
	after, err := c.use(false)
	if err != nil {
		return nil, err
	}
	figures := []figure{
		{"bytes at the device a minute", float64(after.NetBytes-before.NetBytes) / 1024, "KiB"},
		{"CPU of each node", 100 * float64(after.CPUNs-before.CPUNs) / 60e9 / float64(len(c.nodes)), "% of a core"},
		{"RSS of each node", float64(after.RSSBytes) / float64(len(c.nodes)) / (1 << 20), "MiB"},
	}
	if keys > 0 {
		figures = append(figures, figure{"heap a key and node", float64(before.Heap-empty.Heap) / float64(keys*len(c.nodes)), "B"})
	}
	return figures, nil
}

// copies: how often each node is sent an op once the trees have been learned.
func copies(ctx context.Context, c *cluster) ([]figure, error) {
	const learn, measure = 100, 500
	for i, count := range []int{learn, measure} {
		before, err := c.stats()
		if err != nil {
			return nil, err
		}
		prefix := fmt.Sprintf("c%d/", i)
		if _, err := c.put(0, &peer.Request{Prefix: prefix, Count: count, Size: valueBytes, Every: int64(20 * time.Millisecond)}, time.Minute); err != nil {
			return nil, err
		}
		if _, _, err := c.await(ctx, prefix, count, 30*time.Second); err != nil {
			return nil, err
		}
		if i == 0 {
			continue
		}
		after, err := c.stats()
		if err != nil {
			return nil, err
		}
		applied, twice := after["OpsApplied"]-before["OpsApplied"], after["OpsDuplicate"]-before["OpsDuplicate"]
		return []figure{
			{"copies of an op a node", float64(applied+twice) / float64(count*(len(c.nodes)-1)), ""},
			{"links a node", float64(after["links"]) / float64(len(c.nodes)), ""},
		}, nil
	}
	return nil, nil
}
