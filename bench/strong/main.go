// Command strong runs strong keyspaces and other replicated stores through the same
// load, three servers each, and prints the medians with their spread.
//
//	go -C bench run ./strong -rounds 5 -doc ../docs/benchmarks-strong.md
//
// All data is on one disk, every write is synced, and one process, this one, is
// the client of all. In every round the systems come one after another, each round
// beginning with the next, with new clusters.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

func main() {
	only := flag.String("only", "", "comma-separated beginnings of cells; empty: all")
	who := flag.String("systems", "", "comma-separated systems; empty: all")
	dir := flag.String("dir", "", "where the data is made, and removed; empty: the directory for temporary files")
	doc := flag.String("doc", "", "file for the Markdown, besides stdout")
	list := flag.Bool("list", false, "print the cells and stop")
	var r runner
	flag.IntVar(&r.rounds, "rounds", 5, "runs of each cell")
	flag.DurationVar(&r.length, "time", 5*time.Second, "length of a run")
	flag.DurationVar(&r.warm, "warm", time.Second, "time before it that does not count")
	flag.DurationVar(&r.rest, "rest", 30*time.Second, "length of an idle run")
	flag.IntVar(&r.kills, "n", 3, "leaders killed in a run of failover")
	agent := flag.String("agent", "", "more flags for the agents of meshkv, as in: -agent '--log-store boltdb'")
	flag.Parse()
	r.agent = strings.Fields(*agent)
	if *list {
		for _, c := range cells() {
			fmt.Println(c.name)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := r.run(ctx, *dir, split(*only), split(*who), *doc); err != nil {
		fmt.Fprintln(os.Stderr, "strong:", err)
		os.Exit(1)
	}
}

func split(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}

// chosen reports whether name begins with one of the words, or there are none.
func chosen(name string, words []string) bool {
	for _, w := range words {
		if strings.HasPrefix(name, w) {
			return true
		}
	}
	return len(words) == 0
}

// A cell is one measurement. Cells of one group follow each other at one cluster.
type cell struct {
	name, group string
	run         func(r *runner, ctx context.Context, c *cluster) ([]figure, error)
}

func cells() []cell {
	clients := func(name, group string, run func(*runner, context.Context, *cluster, int) ([]figure, error), n int) cell {
		return cell{fmt.Sprintf("%s-%d", name, n), group, func(r *runner, ctx context.Context, c *cluster) ([]figure, error) { return run(r, ctx, c, n) }}
	}
	return []cell{
		clients("writes", "load", (*runner).writes, 1),
		clients("writes", "load", (*runner).writes, 64),
		clients("writes", "load", (*runner).writes, 256),
		clients("reads", "load", (*runner).reads, 1),
		clients("reads", "load", (*runner).reads, 64),
		clients("reads", "load", (*runner).reads, 256),
		{"memory", "load", (*runner).memory},
		clients("lock", "lock", (*runner).locks, 1),
		clients("lock", "lock", (*runner).locks, 64),
		clients("contended", "lock", (*runner).contended, 32),
		{"failover", "failover", (*runner).failover},
		{"idle-50", "idle", (*runner).idle},
		{"many-50", "many", (*runner).many},
	}
}

// A runner runs the cells.
type runner struct {
	rounds, kills      int
	length, warm, rest time.Duration
	agent              []string // more flags for meshkv
	report             *report
}

func (r *runner) run(ctx context.Context, parent string, only, who []string, doc string) (err error) {
	dir, err := os.MkdirTemp(parent, "meshkv-strong-")
	if err != nil {
		return fmt.Errorf("make a directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := onDisk(dir); err != nil {
		return err
	}
	bins := make(map[string]string)
	for i := range systems {
		if s := &systems[i]; chosen(s.name, who) {
			if bins[s.name], err = s.build(ctx, dir); err != nil {
				return err
			}
		}
	}
	groups := make(map[string][]cell)
	var order []string
	for _, c := range cells() {
		if chosen(c.name, only) {
			if groups[c.group] == nil {
				order = append(order, c.group)
			}
			groups[c.group] = append(groups[c.group], c)
		}
	}
	r.report = newReport()
	for _, group := range order {
		for round := range r.rounds {
			if err := r.report.probe(dir); err != nil {
				return err
			}
			for i := range systems {
				s := &systems[(i+round)%len(systems)]
				if bins[s.name] == "" {
					continue
				}
				r.once(ctx, s, bins[s.name], dir, round, groups[group])
				if ctx.Err() != nil {
					return ctx.Err()
				}
			}
		}
	}
	r.report.end()
	r.report.write(os.Stdout)
	if doc != "" {
		f, err := os.Create(doc)
		if err != nil {
			return fmt.Errorf("write figures: %w", err)
		}
		r.report.write(f)
		return f.Close()
	}
	return nil
}

// once runs the cells of a group at a cluster of their own. Failures go to the report.
func (r *runner) once(ctx context.Context, s *system, bin, dir string, round int, group []cell) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	var more []string
	if s.name == ours {
		more = r.agent
	}
	cl, err := newCluster(ctx, s, bin, dir, more)
	if err != nil {
		r.report.add(group[0].name, s.name, nil, err)
		fmt.Fprintf(os.Stderr, "%s %d/%d %s: %v\n", group[0].name, round+1, r.rounds, s.name, err)
		return
	}
	defer cl.stop()
	for _, c := range group {
		figures, err := c.run(r, ctx, cl)
		r.report.add(c.name, s.name, figures, err)
		fmt.Fprintf(os.Stderr, "%s %d/%d %s: %s %v\n", c.name, round+1, r.rounds, s.name, brief(figures), err)
	}
}
