//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	keyspaceName = "concern"
	// clients of one node.
	clients = 4
	// ackWithin is the deadline of a write: one that waits for nodes that are down
	// ends before they are back.
	ackWithin = "1s"
	// backWithin bounds the time after the faults of a round in which all are equal.
	backWithin = 60 * time.Second
)

type options struct {
	nodes, rounds int
	writing       time.Duration // before the faults of a round, about
	seed          uint64
	binary, dir   string
	acks          string // query parameters of the writes
}

// A verdict is what a run found.
type verdict struct {
	Rounds    int
	Acked     int // writes
	Unsure    int // writes that were not acknowledged
	Stopped   int // processes, before they were killed
	Killed    int // processes
	Wiped     int // directories
	WipedSize int64
	Anomalies []string
	Invalid   []string // why the run proves nothing
}

func (v *verdict) problems() []string { return append(slices.Clone(v.Invalid), v.Anomalies...) }

// run writes with acks, takes the disks of minorities away, and looks for what was
// acknowledged.
func run(ctx context.Context, o options, progress io.Writer) (v *verdict, err error) {
	c, err := newCluster(o.nodes, o.binary, o.dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	for _, a := range c.nodes {
		if err := c.start(a); err != nil {
			return nil, err
		}
	}
	if err := c.ready(ctx); err != nil {
		return nil, err
	}
	rng := rand.New(rand.NewPCG(o.seed, 1))
	h := newHistory()
	v = &verdict{}
	for round := range o.rounds {
		before := h.acknowledged()
		if err := c.round(ctx, rng, round, o, h, v); err != nil {
			return nil, fmt.Errorf("round %d: %w", round, err)
		}
		if h.acknowledged() == before {
			v.Invalid = append(v.Invalid, fmt.Sprintf("round %d: no write was acknowledged", round))
		}
		v.Rounds++
		if round%10 == 9 {
			fmt.Fprintf(progress, "%d rounds, %d acknowledged writes, %d anomalies\n", v.Rounds, h.acknowledged(), len(v.Anomalies))
		}
		if len(v.Anomalies) > 0 {
			break
		}
	}
	v.Acked = h.acknowledged()
	if v.Wiped == 0 || v.WipedSize == 0 {
		v.Invalid = append(v.Invalid, "no disk was lost that held anything")
	}
	return v, nil
}

// A plan is what one round does.
type plan struct {
	writers []*agent // to which clients write
	stopped []*agent // that stand still from the middle of the writes on
	dead    []*agent // that are killed at the end of them
	victims []*agent // of the dead: a minority, which loses its disks
	over    bool     // the writes end before anybody is back
}

// draw makes a plan. Where all are killed, up to just more than half may stand still
// before: what is then acknowledged, if anything, is on those that lose their disks
// and on no more than a quorum has to have.
func (c *cluster) draw(rng *rand.Rand) plan {
	order := make([]*agent, len(c.nodes))
	for i, k := range rng.Perm(len(c.nodes)) {
		order[i] = c.nodes[k]
	}
	minority := (len(order) - 1) / 2
	p := plan{writers: order[:1+rng.IntN(len(order))], victims: order[:1+rng.IntN(minority)]}
	if rng.IntN(3) == 0 {
		p.dead = p.victims
		return p
	}
	p.dead, p.over = order, true
	p.stopped = order[len(order)-rng.IntN(minority+2):]
	return p
}

func (c *cluster) round(ctx context.Context, rng *rand.Rand, round int, o options, h *history, v *verdict) (err error) {
	p := c.draw(rng)
	writing, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	var unsure atomic.Int64
	defer func() {
		stop()
		wg.Wait()
		v.Unsure += int(unsure.Load())
		if err == nil {
			err = c.judge(ctx, rng, h, v)
		}
	}()
	for i, a := range p.writers {
		for k := range clients {
			seed := rng.Uint64()
			wg.Go(func() {
				n := a.write(writing, rand.New(rand.NewPCG(seed, 2)), fmt.Sprintf("r%04d-%d-%d-", round, i, k), o.acks, h)
				unsure.Add(int64(n))
			})
		}
	}
	rest(ctx, o.writing/4+rand.N(o.writing/2))
	if err := pause(ctx, p.stopped); err != nil {
		return err
	}
	v.Stopped += len(p.stopped)
	rest(ctx, o.writing/4+rand.N(o.writing/2))
	if err := kill(p.dead); err != nil {
		return err
	}
	v.Killed += len(p.dead)
	for _, a := range p.victims {
		bytes, err := a.wipe()
		if err != nil {
			return err
		}
		v.Wiped++
		v.WipedSize += bytes
	}
	if p.over {
		stop()
		wg.Wait()
	}
	for _, a := range p.dead {
		if err := c.start(a); err != nil {
			return err
		}
	}
	return c.ready(ctx)
}

// rest is a time of writing: what happens in it decides nothing.
func rest(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// judge waits until all nodes are equal, and looks at one of them.
func (c *cluster) judge(ctx context.Context, rng *rand.Rand, h *history, v *verdict) error {
	ctx, cancel := context.WithTimeout(ctx, backWithin)
	defer cancel()
	// Equal digests of all in one pass, of replicas that nobody writes to any more.
	for equal := false; !equal; {
		digests := make(map[string]bool)
		err := c.await(ctx, "digest", func(a *agent) error {
			d, err := a.digest(ctx)
			if err == nil {
				digests[d] = true
			}
			return err
		})
		if err != nil {
			return err
		}
		if equal = len(digests) == 1; !equal {
			select {
			case <-time.After(20 * time.Millisecond):
			case <-ctx.Done():
				return fmt.Errorf("the nodes do not become equal: %w", ctx.Err())
			}
		}
	}
	shown, err := c.nodes[rng.IntN(len(c.nodes))].list(ctx)
	if err != nil {
		return err
	}
	v.Anomalies = append(v.Anomalies, h.judge(shown)...)
	return nil
}

// ready waits until every node serves and takes all others for alive.
func (c *cluster) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, backWithin)
	defer cancel()
	return c.await(ctx, "see all others alive", func(a *agent) error {
		var list struct {
			Members []struct{ Name, Status string }
		}
		if err := a.do(ctx, "GET", "/v1/members", "", func(r io.Reader) error { return json.NewDecoder(r).Decode(&list) }); err != nil {
			return err
		}
		n := 0
		for _, m := range list.Members {
			if m.Status == "alive" {
				n++
			}
		}
		if n != len(c.nodes) {
			return fmt.Errorf("%d of %d alive", n, len(c.nodes))
		}
		return nil
	})
}

// write puts keys of its own, and deletes some, until ctx ends, and returns how many
// of these writes were not acknowledged.
func (a *agent) write(ctx context.Context, rng *rand.Rand, prefix, acks string, h *history) (unsure int) {
	query := "?" + acks + "&timeout=" + ackWithin
	for n := 0; ctx.Err() == nil; n++ {
		key := fmt.Sprint(prefix, n)
		path := "/v1/kv/" + keyspaceName + "/" + url.PathEscape(key) + query
		h.note(key, false, present) // also where the answer is lost
		err := a.do(ctx, "PUT", path, key, func(r io.Reader) error { _, err := io.Copy(io.Discard, r); return err })
		h.settle(key, err, present)
		if err == nil && rng.IntN(5) == 0 {
			h.note(key, false, absent)
			err = a.do(ctx, "DELETE", path, "", func(r io.Reader) error { _, err := io.Copy(io.Discard, r); return err })
			h.settle(key, err, absent)
		}
		if err != nil {
			unsure++
			select { // the node is down, or waits for others
			case <-time.After(5 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	}
	return unsure
}

// settle records a write that was answered.
func (h *history) settle(key string, err error, m mark) {
	if err == nil {
		h.note(key, true, m)
	}
}

func (a *agent) digest(ctx context.Context) (string, error) {
	var d struct{ Digest string }
	err := a.do(ctx, "GET", "/v1/digest/"+keyspaceName, "", func(r io.Reader) error { return json.NewDecoder(r).Decode(&d) })
	if err == nil && d.Digest == "" {
		err = errors.New("the answer has no digest")
	}
	return d.Digest, err
}

// list is what the node shows.
func (a *agent) list(ctx context.Context) (map[string]string, error) {
	shown := make(map[string]string)
	err := a.do(ctx, "GET", "/v1/keys/"+keyspaceName+"?values=true", "", func(r io.Reader) error {
		lines := bufio.NewScanner(r)
		for lines.Scan() {
			var e struct {
				Key   string
				Value []byte
				Error json.RawMessage
			}
			if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
				return err
			}
			if e.Error != nil {
				return fmt.Errorf("list: %s", e.Error)
			}
			shown[e.Key] = string(e.Value)
		}
		return lines.Err()
	})
	return shown, err
}
