package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/meshkv/meshkv/client"
)

// A tour is a scripted demo: a series of steps, each of which checks a promise.
// It ends at the first that does not hold.
type tour struct {
	app  *app
	c    *demoCluster
	left []*demoNode // one side of the partition, nodes 1 and 2
	rest []*demoNode // the other
}

// A step does something and checks it. Its detail says what was seen, with the
// times that were measured.
type step struct {
	what string
	do   func(ctx context.Context) (detail string, err error)
}

type jsonStep struct {
	Step   string  `json:"step"`
	OK     bool    `json:"ok"`
	Detail string  `json:"detail"`
	Took   float64 `json:"took_ms"`
}

func (a *app) tour(ctx context.Context, c *demoCluster) error {
	t := &tour{app: a, c: c, left: c.nodes[:2], rest: c.nodes[2:]}
	steps := []step{
		{fmt.Sprintf("start %d nodes", len(c.nodes)), t.start},
		{"write overlay records on every node", t.sample},
		{"put on host-1, see it on the others", t.propagate},
		{"partition 1,2 from the rest, write and delete on both sides", t.split},
		{"each side finds the other failed, and goes on serving", t.apart},
		{"heal", t.heal},
		{"no deletion was undone, no unseen write was lost", t.merged},
		{fmt.Sprintf("kill %d: its endpoints disappear from the others", len(c.nodes)), t.kill},
		{fmt.Sprintf("restart %d with its old disk: what was deleted meanwhile stays deleted", len(c.nodes)), t.restart},
	}
	begin := time.Now()
	for i, s := range steps {
		stepBegin := time.Now()
		detail, err := s.do(ctx)
		took := time.Since(stepBegin)
		if err != nil && interrupted(ctx, err) {
			return err
		}
		if err != nil {
			detail = oneLine(err.Error())
		}
		if perr := t.report(i+1, s.what, detail, err == nil, took); perr != nil {
			return perr
		}
		if err != nil {
			return &failure{text: fmt.Sprintf("the tour ended at step %d of %d: %s", i+1, len(steps), s.what), cause: errTour}
		}
	}
	if a.output == formatTable {
		fmt.Fprintf(a.stdout, "every check held (%v)\n", brief(time.Since(begin)))
	}
	return nil
}

// errTour is what a failed check wraps: the code is 1 whatever the cause was.
var errTour = errors.New("a check of the tour did not hold")

func (t *tour) report(number int, what, detail string, ok bool, took time.Duration) error {
	w := t.app.stdout
	verdict := "ok"
	if !ok {
		verdict = "FAILED"
	}
	var err error
	switch t.app.output {
	case formatJSON:
		err = t.app.printJSON(jsonStep{what, ok, detail, millis(took)})
	case formatRaw:
		_, err = fmt.Fprintf(w, "%s\t%s\t%s\n", verdict, what, detail)
	default:
		_, err = fmt.Fprintf(w, "%d. %s\n   %s: %s\n", number, what, verdict, detail)
	}
	return err
}

func (t *tour) start(ctx context.Context) (string, error) {
	begin := time.Now()
	if err := t.c.start(ctx); err != nil {
		return "", err
	}
	return fmt.Sprintf("every node reaches every other after %v", brief(time.Since(begin))), nil
}

func (t *tour) sample(ctx context.Context) (string, error) {
	if err := t.c.announceAll(ctx); err != nil {
		return "", err
	}
	took, err := t.c.waitEqual(ctx, t.c.nodes, sampleKeyspaces...)
	if err != nil {
		return "", err
	}
	want := endpointsPerHost * len(t.c.nodes)
	for _, n := range t.c.nodes {
		keys, err := n.keys(ctx, endpointsKeyspace, "")
		if err != nil {
			return "", err
		}
		if len(keys) != want {
			return "", fmt.Errorf("%s lists %d endpoints, not %d", n.name, len(keys), want)
		}
	}
	return fmt.Sprintf("%d endpoints on every node, digests equal %v after the last put", want, brief(took)), nil
}

// propagate measures the time from a put until the last of the others has the
// event.
func (t *tour) propagate(ctx context.Context) (string, error) {
	const puts = 25
	ctx, cancel := context.WithTimeout(ctx, demoPatience)
	defer cancel()
	var watches []client.Watch
	for _, n := range t.c.nodes[1:] {
		ks, err := n.run.Keyspace(ctx, routesKeyspace)
		if err != nil {
			return "", err
		}
		w, err := ks.Watch(ctx, "probe-", &client.WatchOptions{UpdatesOnly: true})
		if err != nil {
			return "", err
		}
		defer w.Close()
		watches = append(watches, w)
	}
	times := make([]time.Duration, 0, puts)
	for i := range puts {
		key := fmt.Sprintf("probe-%02d", i)
		begin := time.Now()
		if err := t.c.nodes[0].put(ctx, routesKeyspace, key, []byte("x"), false); err != nil {
			return "", err
		}
		for _, w := range watches {
			if err := awaitPut(ctx, w, key); err != nil {
				return "", err
			}
		}
		times = append(times, time.Since(begin))
	}
	slices.Sort(times)
	return fmt.Sprintf("%d puts, seen by all others after %v (median), %v (slowest)", puts, brief(times[puts/2]), brief(times[puts-1])), nil
}

func awaitPut(ctx context.Context, w client.Watch, key string) error {
	for {
		ev, err := w.Next(ctx)
		if err != nil {
			return fmt.Errorf("watch for a put: %w", err)
		}
		if ev.Type == client.EventPut && ev.Entry.Key == key {
			return nil
		}
	}
}

// splitWrites is the number of writes of each side beside the named ones.
const splitWrites = 200

// split writes what both sides know, cuts, and lets each side write and delete:
//
//	gone-left, gone-right  deleted by one side, untouched by the other
//	contested              deleted on the left, overwritten on the right, unseen by each other
//	both                   written on both sides
func (t *tour) split(ctx context.Context) (string, error) {
	for _, key := range []string{"gone-left", "gone-right", "contested", "stale", "kept"} {
		if err := t.c.nodes[0].put(ctx, routesKeyspace, key, []byte("old"), false); err != nil {
			return "", err
		}
	}
	if _, err := t.c.waitEqual(ctx, t.c.nodes, routesKeyspace); err != nil {
		return "", err
	}
	if err := t.c.partition(t.left); err != nil {
		return "", err
	}
	for side, nodes := range map[string][]*demoNode{"left": t.left, "right": t.rest} {
		for i := range splitWrites {
			n := nodes[i%len(nodes)]
			if err := n.put(ctx, routesKeyspace, fmt.Sprintf("%s-%03d", side, i), []byte(n.name), false); err != nil {
				return "", err
			}
		}
		n := nodes[len(nodes)-1]
		if err := n.put(ctx, routesKeyspace, "both", []byte(side), false); err != nil {
			return "", err
		}
		if err := n.del(ctx, routesKeyspace, "gone-"+side); err != nil {
			return "", err
		}
	}
	if err := t.left[0].del(ctx, routesKeyspace, "contested"); err != nil {
		return "", err
	}
	if err := t.rest[0].put(ctx, routesKeyspace, "contested", []byte("new"), false); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d writes and deletions on each side, all served", splitWrites+3), nil
}

func (t *tour) apart(ctx context.Context) (string, error) {
	var slowest time.Duration
	for _, side := range [][]*demoNode{t.left, t.rest} {
		took, err := t.c.waitAlive(ctx, side, len(side))
		if err != nil {
			return "", err
		}
		slowest = max(slowest, took)
		if _, err := t.c.waitEqual(ctx, side, routesKeyspace); err != nil {
			return "", err
		}
	}
	for side, nodes := range map[string][]*demoNode{"left": t.left, "right": t.rest} {
		other := map[string]string{"left": "right", "right": "left"}[side]
		for _, n := range nodes {
			own, err := n.keys(ctx, routesKeyspace, side+"-")
			if err != nil {
				return "", err
			}
			foreign, err := n.keys(ctx, routesKeyspace, other+"-")
			if err != nil {
				return "", err
			}
			if len(own) != splitWrites || len(foreign) != 0 {
				return "", fmt.Errorf("%s has %d keys of its own side and %d of the other: the partition is not one", n.name, len(own), len(foreign))
			}
		}
	}
	l, err := keyspaceDigest(ctx, t.left[0].run, routesKeyspace)
	if err != nil {
		return "", err
	}
	r, err := keyspaceDigest(ctx, t.rest[0].run, routesKeyspace)
	if err != nil {
		return "", err
	}
	if l.Digest == r.Digest {
		return "", errors.New("the digests of the two sides are equal though their contents differ")
	}
	return fmt.Sprintf("found failed after another %v; each side agrees within itself, and the sides differ", brief(slowest)), nil
}

func (t *tour) heal(ctx context.Context) (string, error) {
	if err := t.c.faults.heal(); err != nil {
		return "", err
	}
	took, err := t.c.waitEqual(ctx, t.c.nodes, routesKeyspace, nodesKeyspace, endpointsKeyspace)
	if err != nil {
		return "", err
	}
	d, err := keyspaceDigest(ctx, t.c.nodes[0].run, routesKeyspace)
	if err != nil {
		return "", err
	}
	if err := t.c.waitConnected(ctx, t.c.nodes); err != nil {
		return "", err
	}
	return fmt.Sprintf("equal digests (%s) on all nodes after %v", d.Digest, brief(took)), nil
}

func (t *tour) merged(ctx context.Context) (string, error) {
	for _, n := range t.c.nodes {
		for _, prefix := range []string{"left-", "right-"} {
			keys, err := n.keys(ctx, routesKeyspace, prefix)
			if err != nil {
				return "", err
			}
			if len(keys) != splitWrites {
				return "", fmt.Errorf("%s has %d of %d keys %s*", n.name, len(keys), splitWrites, prefix)
			}
		}
		if err := t.expect(ctx, n, map[string]string{
			"gone-left": "", "gone-right": "", "contested": "new", "kept": "old", "stale": "old",
		}); err != nil {
			return "", err
		}
	}
	var winner client.Entry
	for i, n := range t.c.nodes {
		e, err := n.get(ctx, routesKeyspace, "both")
		if err != nil {
			return "", fmt.Errorf("%s: %w", n.name, err)
		}
		if i == 0 {
			winner = e
		}
		if e.Version != winner.Version || len(e.Siblings) != 1 {
			return "", fmt.Errorf("%s shows another value of the key written on both sides, or has not kept both", n.name)
		}
	}
	return fmt.Sprintf("on all nodes: %d keys of each side, 2 deletions in force, the overwritten key kept, both values of the key written twice (%q is shown)",
		splitWrites, winner.Value), nil
}

// expect compares what a node shows; an empty value means no such key.
func (t *tour) expect(ctx context.Context, n *demoNode, want map[string]string) error {
	for _, key := range slices.Sorted(maps.Keys(want)) {
		e, err := n.get(ctx, routesKeyspace, key)
		if err != nil && !errors.Is(err, client.ErrNotFound) {
			return fmt.Errorf("%s: get %s: %w", n.name, key, err)
		}
		if got := string(e.Value); got != want[key] {
			return fmt.Errorf("%s shows %q for key %s, not %q", n.name, got, key, want[key])
		}
	}
	return nil
}

func (t *tour) kill(ctx context.Context) (string, error) {
	victim := t.c.nodes[len(t.c.nodes)-1]
	if err := t.c.kill(ctx, victim); err != nil {
		return "", err
	}
	prefix := fmt.Sprintf("10.42.%d.", victim.number)
	took, err := until(ctx, func(ctx context.Context) (string, error) {
		for _, n := range t.c.running() {
			keys, err := n.keys(ctx, endpointsKeyspace, prefix)
			if err != nil {
				return "", err
			}
			if len(keys) > 0 {
				return fmt.Sprintf("%s lists %d endpoints of %s", n.name, len(keys), victim.name), nil
			}
		}
		return "", nil
	})
	if err != nil {
		return "", err
	}
	// What the dead node still has on its disk is deleted and overwritten here.
	if err := t.c.nodes[1].del(ctx, routesKeyspace, "stale"); err != nil {
		return "", err
	}
	if err := t.c.nodes[0].put(ctx, routesKeyspace, "kept", []byte("new"), false); err != nil {
		return "", err
	}
	return fmt.Sprintf("gone on all others after %v", brief(took)), nil
}

func (t *tour) restart(ctx context.Context) (string, error) {
	victim := t.c.nodes[len(t.c.nodes)-1]
	begin := time.Now()
	if err := t.c.restart(ctx, victim); err != nil {
		return "", err
	}
	if err := announce(ctx, victim); err != nil {
		return "", err
	}
	if _, err := t.c.waitEqual(ctx, t.c.nodes, routesKeyspace, nodesKeyspace, endpointsKeyspace); err != nil {
		return "", err
	}
	took := time.Since(begin)
	for _, n := range t.c.nodes {
		if err := t.expect(ctx, n, map[string]string{"stale": "", "kept": "new", "gone-left": "", "gone-right": "", "contested": "new"}); err != nil {
			return "", err
		}
	}
	want := endpointsPerHost * len(t.c.nodes)
	if _, err := until(ctx, func(ctx context.Context) (string, error) {
		for _, n := range t.c.nodes {
			keys, err := n.keys(ctx, endpointsKeyspace, "")
			if err != nil {
				return "", err
			}
			if len(keys) != want {
				return fmt.Sprintf("%s lists %d endpoints, not %d", n.name, len(keys), want), nil
			}
		}
		return "", nil
	}); err != nil {
		return "", err
	}
	return fmt.Sprintf("equal digests on all nodes %v after its start; its endpoints are back", brief(took)), nil
}
