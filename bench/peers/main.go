// Command peers runs meshkv and other systems through the same scenarios, one
// after another in the same run, and prints the medians with their spread.
//
//	go -C bench run ./peers -rounds 5 -doc ../docs/benchmarks-peers.md
//
// It needs root: each run has a network namespace of its own, so that the byte
// counters of its loopback device are the run's.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

func main() {
	only := flag.String("only", "", "comma-separated beginnings of scenario names; empty: all")
	who := flag.String("systems", "", "comma-separated systems; empty: all")
	rounds := flag.Int("rounds", 5, "runs of each, fewer where a run takes minutes")
	doc := flag.String("doc", "", "file for the Markdown; empty: stdout")
	list := flag.Bool("list", false, "print the scenarios and stop")
	flag.Parse()
	if *list {
		for _, s := range scenarios() {
			fmt.Println(s.name)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, split(*only), split(*who), *rounds, *doc); err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
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

func run(ctx context.Context, only, who []string, rounds int, doc string) error {
	dir, err := os.MkdirTemp("", "meshkv-peers-")
	if err != nil {
		return fmt.Errorf("make a directory: %w", err)
	}
	bins := make(map[string]string)
	for i := range systems {
		s := &systems[i]
		if !chosen(s.name, who) {
			continue
		}
		if bins[s.name], err = s.build(ctx, dir); err != nil {
			return err
		}
	}
	r := newReport()
	for _, sc := range scenarios() {
		if !chosen(sc.name, only) {
			continue
		}
		for round := range rounds {
			for i := range systems {
				s := &systems[i]
				if bins[s.name] == "" || round >= sc.rounds(s, rounds) {
					continue
				}
				if why := sc.skip(s); why != "" {
					r.skip(sc.name, s.name, why)
					continue
				}
				began := time.Now()
				figures, err := once(ctx, &sc, s, bins[s.name])
				if ctx.Err() != nil {
					return ctx.Err()
				}
				fmt.Fprintf(os.Stderr, "%s %s %d/%d %s: %v %v\n", sc.name, s.name, round+1, sc.rounds(s, rounds), time.Since(began).Round(time.Second), figures, err)
				r.add(sc.name, s.name, figures, err)
			}
		}
	}
	out := os.Stdout
	if doc != "" {
		if out, err = os.Create(doc); err != nil {
			return fmt.Errorf("write figures: %w", err)
		}
		defer out.Close()
	}
	r.write(out, strings.Join(os.Args[1:], " "))
	return os.RemoveAll(dir)
}

// once is one run of a scenario with a cluster of its own.
func once(ctx context.Context, sc *scenario, s *system, bin string) ([]figure, error) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Minute)
	defer cancel()
	c, err := newCluster(ctx, s, bin, fmt.Sprintf("mkvpeers%d", os.Getpid()), sc.nodes, sc.keys)
	if err != nil {
		return nil, err
	}
	defer c.stop()
	return sc.run(ctx, c)
}
