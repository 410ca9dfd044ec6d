package main

import (
	"encoding/csv"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/meshkv/meshkv/gossip/sim/fleet"
	"github.com/meshkv/meshkv/gossip/sim/plot"
)

const ours = "meshkv"

// table is one CSV file.
type table struct {
	name string
	head []string
	rows [][]string
}

func (t *table) write(dir string) error {
	f, err := os.Create(filepath.Join(dir, t.name+".csv"))
	if err != nil {
		return err
	}
	w := csv.NewWriter(f)
	_ = w.Write(t.head)
	_ = w.WriteAll(t.rows) // the error stays in w
	if err := w.Error(); err != nil {
		_ = f.Close()
		return err
	}
	return f.Close()
}

func write(dir, name string, figure interface{ WriteSVG(io.Writer) error }) error {
	f, err := os.Create(filepath.Join(dir, name+".svg"))
	if err != nil {
		return err
	}
	if err := figure.WriteSVG(f); err != nil {
		_ = f.Close()
		return err
	}
	return f.Close()
}

func ms(d time.Duration) string { return fmt.Sprintf("%.3f", d.Seconds()*1000) }

func spreadHead() []string {
	return []string{
		"system", "nodes", "ops", "share", "p50_ms", "p90_ms", "p99_ms", "max_ms", "last_p50_ms", "last_p99_ms",
		"copies", "op_bytes_per_node_and_op", "other_bytes_per_node_and_s",
	}
}

func spreadRow(o fleet.Outcome) []string {
	s := o.Spread
	op, rest := perNode(o)
	return []string{
		o.Scenario, fmt.Sprint(o.Nodes), fmt.Sprint(s.Ops), fmt.Sprintf("%.5f", s.Share), ms(s.P50), ms(s.P90), ms(s.P99), ms(s.Max),
		ms(s.Last50), ms(s.Last99), fmt.Sprintf("%.4f", o.Copies), fmt.Sprintf("%.0f", op), fmt.Sprintf("%.1f", rest),
	}
}

// perNode is the bytes of ops, of each op, and of everything else, a second.
func perNode(o fleet.Outcome) (op, rest float64) {
	for k, b := range o.Traffic.Bytes {
		if fleet.KindName(k) == "op" {
			op = float64(b) / float64(o.Nodes) / float64(max(o.Spread.Ops, 1))
		} else {
			rest += float64(b) / float64(o.Nodes) / o.Over.Seconds()
		}
	}
	return op, rest
}

func systems(outcomes []fleet.Outcome) (names []string) {
	for _, o := range outcomes {
		if !slices.Contains(names, o.Scenario) {
			names = append(names, o.Scenario)
		}
	}
	return names
}

func propagationChart(outcomes []fleet.Outcome) *plot.Chart {
	c := &plot.Chart{
		Title: "Time from a put to the nodes, by the number of nodes",
		Note:  "Spaced puts in a quiet fleet on one LAN model (0.2 to 0.5 ms one way). Lower is better.",
		X:     plot.Axis{Label: "nodes", Log: true, Format: plot.Count},
		Y:     plot.Axis{Label: "time since the put", Log: true, Format: plot.Seconds},
	}
	for i, name := range systems(outcomes) {
		p50 := plot.Series{Name: name + ", p50", Colour: i, Dots: true, Wide: name == fleet.NetworkDB.Name}
		p99 := plot.Series{Name: name + ", p99", Colour: i, Dots: true, Dash: true, Wide: name == fleet.NetworkDB.Name}
		for _, o := range outcomes {
			if o.Scenario == name {
				p50.Points = append(p50.Points, plot.Point{X: float64(o.Nodes), Y: o.Spread.P50.Seconds()})
				p99.Points = append(p99.Points, plot.Point{X: float64(o.Nodes), Y: o.Spread.P99.Seconds()})
			}
		}
		c.Series = append(c.Series, p50, p99)
	}
	return c
}

func reachChart(curves map[string][]*fleet.Probe, nodes int) *plot.Chart {
	c := &plot.Chart{
		Title: fmt.Sprintf("Nodes that a put has reached, of %s", plot.Count(float64(nodes))),
		Note:  "Mean over spaced puts in a quiet fleet on one LAN model (0.2 to 0.5 ms one way).",
		X:     plot.Axis{Label: "time since the put", Log: true, Format: plot.Seconds},
		Y:     plot.Axis{Label: "share of nodes reached (%)", Max: 100, Min: 0},
	}
	for i, name := range []string{ours, fleet.NetworkDB.Name, fleet.Piggyback.Name, fleet.PushPull.Name} {
		var all []int64
		for _, p := range curves[name] {
			all = append(all, p.Delays...)
		}
		slices.Sort(all)
		s := plot.Series{Name: name, Colour: i, Wide: name == fleet.NetworkDB.Name}
		total := float64(len(curves[name])) * float64(nodes-1)
		for k := range 201 {
			if len(all) == 0 {
				break
			}
			j := min(k*len(all)/200, len(all)-1)
			s.Points = append(s.Points, plot.Point{X: float64(all[j]) / 1e9, Y: 100 * float64(j+1) / total})
		}
		c.Series = append(c.Series, s)
	}
	return c
}

func learningChart(copies []float64) *plot.Chart {
	s := plot.Series{Name: "one origin, 64 nodes", Dots: true}
	for i, v := range copies {
		s.Points = append(s.Points, plot.Point{X: float64(i + 1), Y: v})
	}
	return &plot.Chart{
		Title: "Copies of an op that arrive at a node, while the tree is learnt",
		Note:  "The first op of an origin floods the links; every duplicate prunes one. 1 is the least there can be.",
		X:     plot.Axis{Label: "op of that origin", Format: plot.Count},
		Y:     plot.Axis{Label: "copies per node"}, Series: []plot.Series{s},
	}
}

// label tells scenarios of different sizes apart.
func label(o fleet.Outcome) string {
	return fmt.Sprintf("%s, %s", o.Scenario, plot.Count(float64(o.Nodes)))
}

func writeScenarios(o options, outcomes []fleet.Outcome) error {
	all := table{name: "scenarios", head: append(spreadHead(),
		"equal_after_s", "grafts", "sessions", "aborted", "busy", "overflows", "fuse", "queue_max", "inbox_max", "clock_max", "pending_max", "events", "trace")}
	all.head[0] = "scenario"
	kinds := table{name: "bytes", head: []string{"scenario", "nodes", "kind", "messages_per_node", "bytes_per_node"}}
	times := table{name: "timeline", head: []string{
		"scenario", "nodes", "t_s", "differing", "bytes_per_node", "clock_mean", "clock_max", "pending_max", "cells_mean", "links_mean", "queue_max", "inbox_max",
	}}
	for _, out := range outcomes {
		var peak fleet.Sizes
		for _, s := range out.Timeline {
			peak.QueuedMax, peak.Inbox = max(peak.QueuedMax, s.QueuedMax), max(peak.Inbox, s.Inbox)
			peak.ClockMax, peak.PendingMax = max(peak.ClockMax, s.ClockMax), max(peak.PendingMax, s.PendingMax)
			times.rows = append(times.rows, []string{
				out.Scenario, fmt.Sprint(out.Nodes), fmt.Sprintf("%.2f", s.At.Seconds()), fmt.Sprint(s.Differing),
				fmt.Sprintf("%.1f", float64(s.Bytes)/float64(out.Nodes)), fmt.Sprintf("%.1f", s.Clock), fmt.Sprint(s.ClockMax),
				fmt.Sprint(s.PendingMax), fmt.Sprintf("%.1f", s.Cells), fmt.Sprintf("%.2f", s.Links), fmt.Sprint(s.QueuedMax), fmt.Sprint(s.Inbox),
			})
		}
		st := out.Stats
		row := append(spreadRow(out), fmt.Sprintf("%.2f", out.Converge.Seconds()))
		for _, v := range []int64{st.Grafts, st.Sessions, st.Aborted, st.Busy, st.Overflows, st.Fuse,
			int64(peak.QueuedMax), int64(peak.Inbox), int64(peak.ClockMax), int64(peak.PendingMax), int64(out.Events)} {
			row = append(row, fmt.Sprint(v))
		}
		all.rows = append(all.rows, append(row, fmt.Sprintf("%016x", out.Trace)))
		for k := range out.Traffic.Bytes {
			if out.Traffic.Messages[k] > 0 {
				kinds.rows = append(kinds.rows, []string{
					out.Scenario, fmt.Sprint(out.Nodes), fleet.KindName(k),
					fmt.Sprintf("%.2f", float64(out.Traffic.Messages[k])/float64(out.Nodes)),
					fmt.Sprintf("%.1f", float64(out.Traffic.Bytes[k])/float64(out.Nodes)),
				})
			}
		}
	}
	for _, t := range []table{all, kinds, times} {
		if err := t.write(o.out); err != nil {
			return err
		}
	}
	for name, figure := range map[string]interface{ WriteSVG(io.Writer) error }{
		"bytes": bytesBars(outcomes), "convergence": convergenceChart(outcomes), "scenarios": scenarioChart(outcomes), "sizes": sizesChart(outcomes),
	} {
		if err := write(o.out, name, figure); err != nil {
			return err
		}
	}
	return nil
}

// groups of message kinds in the figure.
var groups = []string{"op", "ihave", "graft", "prune", "summary", "session", "beacon", "other"}

func bytesBars(outcomes []fleet.Outcome) *plot.Bars {
	b := &plot.Bars{
		Title: "Bytes that a node sends a second, by kind of message",
		Note:  "Without the headers of TCP and TLS. Number of nodes behind the name.",
		X:     plot.Axis{Label: "bytes a second and node", Format: plot.Bytes}, Parts: groups,
	}
	for _, o := range outcomes {
		parts := make([]float64, len(groups))
		for k, bytes := range o.Traffic.Bytes {
			g := slices.Index(groups, fleet.KindName(k))
			if g < 0 {
				g = len(groups) - 1
			}
			parts[g] += float64(bytes) / float64(o.Nodes) / o.Over.Seconds()
		}
		b.Rows = append(b.Rows, plot.Bar{Name: label(o), Parts: parts})
	}
	return b
}

func convergenceChart(outcomes []fleet.Outcome) *plot.Chart {
	c := &plot.Chart{
		Title: "Nodes that hold something else than most, after the heal",
		Note:  "Halves that both were written in. Membership heals at the same time: begun up to 15 s late, 250 members a second.",
		X:     plot.Axis{Label: "since the heal", Format: plot.Seconds},
		Y:     plot.Axis{Label: "share of nodes (%)", Max: 100},
	}
	for _, o := range outcomes {
		if !strings.HasPrefix(o.Scenario, "partition") {
			continue
		}
		s := plot.Series{Name: label(o), Colour: len(c.Series), Steps: true, Wide: len(c.Series) == 0}
		end := o.Over - o.Converge
		for _, x := range o.Timeline {
			if x.At >= end {
				s.Points = append(s.Points, plot.Point{X: (x.At - end).Seconds(), Y: 100 * float64(x.Differing) / float64(o.Nodes)})
			}
		}
		c.Series = append(c.Series, s)
	}
	return c
}

// scenarioChart is the percentiles of each scenario, one after another.
func scenarioChart(outcomes []fleet.Outcome) *plot.Dots {
	d := &plot.Dots{
		Title: "Time from a put to the nodes, by scenario",
		Note:  "Of the puts that were made while the trouble went on, to every node that was up.",
		X:     plot.Axis{Label: "time since the put", Log: true, Format: plot.Seconds},
		Parts: []string{"p50", "p90", "p99", "max"},
	}
	for _, o := range outcomes {
		s := o.Spread
		d.Rows = append(d.Rows, plot.Bar{Name: label(o), Parts: []float64{s.P50.Seconds(), s.P90.Seconds(), s.P99.Seconds(), s.Max.Seconds()}})
	}
	return d
}

func sizesChart(outcomes []fleet.Outcome) *plot.Chart {
	c := &plot.Chart{
		Title: "Entries of the clock C, and pending deaths D, over time",
		Note:  "The largest of any node. Solid: C, one entry for each incarnation that wrote. Dashed: D, empty unless removals overtake puts.",
		X:     plot.Axis{Label: "since the trouble began", Format: plot.Seconds},
		Y:     plot.Axis{Label: "entries", Format: plot.Count},
	}
	colour := 0
	for _, o := range outcomes {
		if !slices.Contains([]string{"steady load", "crashes", "flapping", "rolling restart", "disk loss"}, o.Scenario) {
			continue
		}
		clock := plot.Series{Name: label(o) + ": C", Colour: colour, Wide: colour == 0}
		pending := plot.Series{Name: label(o) + ": D", Colour: colour, Dash: true}
		for _, x := range o.Timeline {
			clock.Points = append(clock.Points, plot.Point{X: x.At.Seconds(), Y: float64(x.ClockMax)})
			pending.Points = append(pending.Points, plot.Point{X: x.At.Seconds(), Y: float64(x.PendingMax)})
		}
		c.Series = append(c.Series, clock, pending)
		colour++
	}
	return c
}
