// Command campaign simulates fleets of meshkv nodes and of systems with other
// rules, and writes what it saw as CSV tables and SVG figures.
package main

import (
	"flag"
	"fmt"
	"log"
	"os"
	"regexp"
	"time"

	"github.com/meshkv/meshkv/gossip/sim/fleet"
)

type options struct {
	out           string
	seed          uint64
	nodes, size   int
	keys, value   int
	rate, puts    int
	writers       int
	largeRate     int
	only          *regexp.Regexp
	large         *regexp.Regexp
	skipSurvey    bool
	limit         time.Duration
	surveyedSizes []int
}

func main() {
	log.SetFlags(0)
	var o options
	flag.StringVar(&o.out, "out", "docs/sim", "directory to write to")
	flag.Uint64Var(&o.seed, "seed", 1, "seed of all runs")
	flag.IntVar(&o.nodes, "nodes", 10_000, "largest number of nodes")
	flag.IntVar(&o.size, "size", 256, "nodes of the scenarios")
	flag.IntVar(&o.keys, "keys", 200, "keys that everybody holds at the start")
	flag.IntVar(&o.value, "value", 100, "bytes of a value")
	flag.IntVar(&o.rate, "rate", 10, "writes a second, of the whole fleet, in the scenarios")
	flag.IntVar(&o.writers, "writers", 16, "nodes that write")
	flag.IntVar(&o.largeRate, "large-rate", 1, "the rate with the largest number of nodes")
	flag.IntVar(&o.puts, "puts", 40, "spaced puts to measure propagation with")
	only := flag.String("only", "", "run the scenarios that match")
	large := flag.String("large", "^partition of 25 h$", "run the scenarios that match with the largest number of nodes, too")
	flag.BoolVar(&o.skipSurvey, "skip-survey", false, "scenarios only")
	flag.DurationVar(&o.limit, "limit", 5*time.Minute, "simulated time in which a fleet must become equal")
	flag.Parse()
	o.only, o.large = regexp.MustCompile(*only), regexp.MustCompile(*large)
	for _, n := range []int{3, 9, 16, 64, 256, 1024, 4096, 10_000, 100_000} {
		if n < o.nodes {
			o.surveyedSizes = append(o.surveyedSizes, n)
		}
	}
	o.surveyedSizes = append(o.surveyedSizes, o.nodes)
	if err := run(o); err != nil {
		log.Fatal(err)
	}
}

func (o *options) config(nodes int) fleet.Config {
	return fleet.Config{Seed: o.seed, Nodes: nodes, Zones: 3, Keys: o.keys, ValueBytes: o.value, Writers: o.writers}
}

func run(o options) error {
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return err
	}
	if !o.skipSurvey {
		if err := survey(o); err != nil {
			return err
		}
		if err := learning(o); err != nil {
			return err
		}
	}
	return scenarios(o)
}

// survey measures propagation by the number of nodes.
func survey(o options) error {
	sizes := table{name: "propagation", head: spreadHead()}
	curves := make(map[string][]*fleet.Probe)
	var outcomes []fleet.Outcome
	for _, n := range o.surveyedSizes {
		start := time.Now()
		out, probes, err := fleet.Survey(o.config(n), o.puts)
		if err != nil {
			return err
		}
		out.Scenario = ours
		report(out, start)
		outcomes = append(outcomes, out)
		curves[ours] = probes
		for _, rules := range []fleet.Rules{fleet.NetworkDB, fleet.Piggyback, fleet.PushPull} {
			start := time.Now()
			out, probes := fleet.SurveyRules(rules, o.config(n), o.puts)
			report(out, start)
			outcomes = append(outcomes, out)
			curves[rules.Name] = probes
		}
	}
	for _, out := range outcomes {
		sizes.rows = append(sizes.rows, spreadRow(out))
	}
	if err := sizes.write(o.out); err != nil {
		return err
	}
	if err := write(o.out, "propagation", propagationChart(outcomes)); err != nil {
		return err
	}
	return write(o.out, "reach", reachChart(curves, o.nodes))
}

func learning(o options) error {
	cfg := o.config(64)
	copies, err := fleet.Learning(cfg, 20)
	if err != nil {
		return err
	}
	t := table{name: "learning", head: []string{"op", "copies_per_node"}}
	for i, c := range copies {
		t.rows = append(t.rows, []string{fmt.Sprint(i + 1), fmt.Sprintf("%.3f", c)})
	}
	log.Printf("copies of the ops of one origin at 64 nodes: %.3f", copies)
	if err := t.write(o.out); err != nil {
		return err
	}
	return write(o.out, "learning", learningChart(copies))
}

func scenarios(o options) error {
	var outcomes []fleet.Outcome
	play := func(n, rate int, match *regexp.Regexp) error {
		for _, s := range fleet.Scenarios(rate) {
			if !match.MatchString(s.Name) {
				continue
			}
			start := time.Now()
			out, err := s.Run(o.config(n), o.limit)
			if err != nil {
				return err
			}
			report(out, start)
			outcomes = append(outcomes, out)
		}
		return nil
	}
	if err := play(o.size, o.rate, o.only); err != nil {
		return err
	}
	if err := play(o.nodes, o.largeRate, o.large); err != nil {
		return err
	}
	if len(outcomes) == 0 {
		return nil
	}
	return writeScenarios(o, outcomes)
}

func report(out fleet.Outcome, start time.Time) {
	s := out.Spread
	log.Printf("%-22s %6d nodes: p50 %v p90 %v p99 %v max %v, share %.4f, copies %.3f, equal after %v, %d grafts, %d sessions, %d events, %.1f s",
		out.Scenario, out.Nodes, round(s.P50), round(s.P90), round(s.P99), round(s.Max), s.Share, out.Copies, out.Converge,
		out.Stats.Grafts, out.Stats.Sessions, out.Events, time.Since(start).Seconds())
}

func round(d time.Duration) time.Duration { return d.Round(10 * time.Microsecond) }
