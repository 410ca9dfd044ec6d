package node

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

// started is a node that ends with the test.
func started(t *testing.T, cfg Config) *Node {
	t.Helper()
	n, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := n.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	return n
}

// pair is two nodes in memory, of which the second has an op of the first.
func pair(t *testing.T) [2]*Node {
	t.Helper()
	var nodes [2]*Node
	for i := range nodes {
		cfg := Config{Name: fmt.Sprintf("n%d", i+1), Bind: "127.0.0.1:0", HTTP: "127.0.0.1:0", Durability: DurabilityMemory}
		if i > 0 {
			cfg.Join = []string{nodes[0].MeshAddr()}
		}
		nodes[i] = started(t, cfg)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	at, err := nodes[1].Keyspace(ctx, "hosts")
	if err != nil {
		t.Fatal(err)
	}
	w, err := at.Watch(ctx, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	from, err := nodes[0].Keyspace(ctx, "hosts")
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"before", "after"} { // they met, and so as an op
		if _, err := from.Put(ctx, key, []byte("v"), nil); err != nil {
			t.Fatal(err)
		}
		for ev, err := w.Next(ctx); ev.Entry.Key != key; ev, err = w.Next(ctx) {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	return nodes
}

var metricName = regexp.MustCompile(`meshkv_[a-z0-9_]+`)

// The names of metrics are as Prometheus wants them, and docs/http.md lists
// those that there are.
func TestMetricsAreDocumented(t *testing.T) {
	nodes := pair(t)
	reg := prometheus.NewRegistry()
	reg.MustRegister(newCollector(nodes[1]))
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	page, err := os.ReadFile("../docs/http.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := make(map[string]bool)
	for _, name := range metricName.FindAllString(string(page), -1) {
		documented[name] = true
	}
	shown := make(map[string]bool)
	for _, f := range families {
		if shown[f.GetName()] = true; !documented[f.GetName()] {
			t.Errorf("%s is not in docs/http.md", f.GetName())
		}
	}
	conditional := regexp.MustCompile(`^meshkv_(api|store)_|^meshkv_drops_total$`) // not of this collector, with a disk, and after a drop
	for name := range documented {
		if !shown[name] && !conditional.MatchString(name) {
			t.Errorf("docs/http.md names %s, which is not shown", name)
		}
	}
}
