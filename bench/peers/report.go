package main

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// report gathers the figures of all runs.
type report struct {
	began time.Time
	load  string
	names []string // scenarios, in order
	rows  map[string]*table
}

// table is the figures of one scenario.
type table struct {
	figures []figure // names and units, in order
	values  map[string]map[string][]float64
	notes   []string
}

func newReport() *report {
	load, _ := os.ReadFile("/proc/loadavg")
	return &report{began: time.Now(), load: strings.Join(strings.Fields(string(load))[:1], ""), rows: make(map[string]*table)}
}

func (r *report) table(scenario string) *table {
	t := r.rows[scenario]
	if t == nil {
		t = &table{values: make(map[string]map[string][]float64)}
		r.rows[scenario] = t
		r.names = append(r.names, scenario)
	}
	return t
}

func (r *report) add(scenario, system string, figures []figure, err error) {
	t := r.table(scenario)
	if err != nil {
		t.note(fmt.Sprintf("%s failed: %v", system, err))
		return
	}
	if t.values[system] == nil {
		t.values[system] = make(map[string][]float64)
	}
	for _, f := range figures {
		if !slices.ContainsFunc(t.figures, func(g figure) bool { return g.name == f.name }) {
			t.figures = append(t.figures, f)
		}
		t.values[system][f.name] = append(t.values[system][f.name], f.value)
	}
}

func (r *report) skip(scenario, system, why string) {
	if why != "not compared" {
		r.table(scenario).note(system + ": " + why)
	}
}

func (t *table) note(text string) {
	if !slices.Contains(t.notes, text) {
		t.notes = append(t.notes, text)
	}
}

// write prints everything as Markdown.
func (r *report) write(w io.Writer, args string) {
	fmt.Fprintf(w, "# meshkv beside its peers\n\nWritten by `go -C bench run ./peers %s` on %s: %d cores, load average %s at the start, Go %s.\n",
		args, r.began.Format("2006-01-02"), runtime.NumCPU(), r.load, runtime.Version())
	fmt.Fprintf(w, "Median (least to most; number of runs). Up to 16 nodes each is a process, 64 are in one. Times are those at which a node's watch showed the key. Bytes are those received at the loopback device of the run's own network namespace, headers and membership included.\n\n")
	for _, s := range systems {
		fmt.Fprintf(w, "- **%s**: %s.\n", s.name, s.config)
	}
	for _, name := range r.names {
		t := r.rows[name]
		fmt.Fprintf(w, "\n## %s\n\n", name)
		var cols []string
		for _, s := range systems {
			if t.values[s.name] != nil {
				cols = append(cols, s.name)
			}
		}
		fmt.Fprintf(w, "| | %s |\n|---|%s\n", strings.Join(cols, " | "), strings.Repeat("---|", len(cols)))
		for _, f := range t.figures {
			cells := make([]string, len(cols))
			for i, c := range cols {
				cells[i] = summary(t.values[c][f.name])
			}
			label := f.name
			if f.unit != "" {
				label += ", " + f.unit
			}
			fmt.Fprintf(w, "| %s | %s |\n", label, strings.Join(cells, " | "))
		}
		for _, n := range t.notes {
			fmt.Fprintf(w, "\n%s.\n", n)
		}
	}
}

func summary(values []float64) string {
	if len(values) == 0 {
		return "—"
	}
	slices.Sort(values)
	mid := values[len(values)/2]
	if n := len(values); n%2 == 0 {
		mid = (values[n/2-1] + values[n/2]) / 2
	}
	return fmt.Sprintf("%s (%s–%s; %d)", number(mid), number(values[0]), number(values[len(values)-1]), len(values))
}

// number with three digits that matter.
func number(v float64) string {
	switch {
	case v == 0:
		return "0"
	case v >= 1000:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}
