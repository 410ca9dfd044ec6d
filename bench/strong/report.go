package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// A report gathers the figures of all runs.
type report struct {
	began         time.Time
	before, after string // load averages
	fsync         []float64
	names         []string // cells, in order
	tables        map[string]*table
}

// A table is the figures of one cell.
type table struct {
	figures []figure // names and units, in order
	values  map[string]map[string][]float64
	notes   []string
}

func newReport() *report {
	return &report{began: time.Now(), before: loadAverage(), tables: make(map[string]*table)}
}

func (r *report) end() { r.after = loadAverage() }

// probe measures the disk.
func (r *report) probe(dir string) error {
	all, err := probeFsync(dir)
	r.fsync = append(r.fsync, all...)
	return err
}

// add takes the figures of a run, those before an error, too.
func (r *report) add(cell, system string, figures []figure, err error) {
	t := r.tables[cell]
	if t == nil {
		t = &table{values: make(map[string]map[string][]float64)}
		r.tables[cell] = t
		r.names = append(r.names, cell)
	}
	if err != nil && !errors.Is(err, errNotOffered) {
		if note := fmt.Sprintf("%s, %s: a run failed: %s", cell, system, firstLine(err)); !slices.Contains(t.notes, note) {
			t.notes = append(t.notes, note)
		}
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

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

// write prints everything as Markdown.
func (r *report) write(w io.Writer) {
	slices.Sort(r.fsync)
	fmt.Fprintf(w, "## Strong keyspaces beside other stores\n\n`go -C bench run ./strong %s`, %s, %s, %d cores, %s. Load average before %s, after %s.\n",
		strings.Join(os.Args[1:], " "), r.began.Format("2006-01-02"), cpuModel(), runtime.NumCPU(), runtime.Version(), r.before, r.after)
	fmt.Fprintf(w, "An append of 4 KiB with fsync took p50 %s ms, p99 %s ms meanwhile (%d probes).\n\n", number(quantile(r.fsync, 0.5)), number(quantile(r.fsync, 0.99)), len(r.fsync))
	fmt.Fprintf(w, "Three servers, each a process, and one client process, all on this machine and its one disk, every write synced; values of %d B, %d keys; clients wait for each answer. Median (least to most; runs).\n\n", valueBytes, keys)
	var cols []system
	for _, s := range systems {
		if slices.ContainsFunc(r.names, func(n string) bool { return len(r.tables[n].values[s.name]) > 0 }) {
			cols = append(cols, s)
			fmt.Fprintf(w, "- **%s**: %s.\n", s.name, s.config)
		}
	}
	fmt.Fprint(w, "\n| cell | |")
	for _, s := range cols {
		fmt.Fprintf(w, " %s |", s.name)
	}
	fmt.Fprintf(w, "\n|---|---|%s\n", strings.Repeat("---|", len(cols)))
	for _, name := range r.names {
		t := r.tables[name]
		for i, f := range t.figures {
			label := name
			if i > 0 {
				label = ""
			}
			fmt.Fprintf(w, "| %s | %s |", label, title(f))
			for _, s := range cols {
				fmt.Fprintf(w, " %s |", summary(t.values[s.name][f.name]))
			}
			fmt.Fprintln(w)
		}
	}
	for _, name := range r.names {
		for _, n := range r.tables[name].notes {
			fmt.Fprintf(w, "\n%s.\n", n)
		}
	}
}

func title(f figure) string {
	if f.unit == "" {
		return f.name
	}
	return f.name + ", " + f.unit
}

// brief is one run's figures on one line.
func brief(figures []figure) string {
	words := make([]string, len(figures))
	for i, f := range figures {
		words[i] = fmt.Sprintf("%s %s", title(f), number(f.value))
	}
	return strings.Join(words, "; ")
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
