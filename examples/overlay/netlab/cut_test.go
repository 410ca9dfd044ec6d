//go:build linux

package netlab

import (
	"strings"
	"testing"
)

func TestCutRules(t *testing.T) {
	rules, err := cutRules([][]string{{"n1", "n2"}, {"n3"}})
	if err != nil {
		t.Fatal(err)
	}
	want := `elements = { "n1" . "n3", "n2" . "n3", "n3" . "n1", "n3" . "n2" }`
	if !strings.Contains(rules, want) {
		t.Errorf("rules\n%s\nlack %s", rules, want)
	}
	for name, groups := range map[string][][]string{
		"no group":      {},
		"one group":     {{"n1", "n2"}},
		"an empty side": {{"n1"}, {}},
		"overlap":       {{"n1"}, {"n2", "n1"}},
		"injection":     {{"n1"}, {"n2\" ; drop"}},
		"no name":       {{"n1"}, {""}},
	} {
		if rules, err := cutRules(groups); err == nil {
			t.Errorf("%s: no error, but\n%s", name, rules)
		}
	}
}

func TestParseDropped(t *testing.T) {
	listing := `{"nftables": [{"metainfo": {"version": "1.0.6"}},
		{"table": {"family": "bridge", "name": "netlab_cut"}},
		{"rule": {"family": "bridge", "table": "other", "chain": "f", "expr": [{"counter": {"packets": 100, "bytes": 1}}]}},
		{"rule": {"family": "bridge", "table": "netlab_cut", "chain": "forward",
		 "expr": [{"match": {"op": "==", "left": {}, "right": "@pairs"}}, {"counter": {"packets": 7, "bytes": 420}}, {"drop": null}]}}]}`
	d, ok, err := parseDropped([]byte(listing))
	if want := (Dropped{7, 420}); err != nil || !ok || d != want {
		t.Errorf("parseDropped = %v, %v, %v, want %v, true", d, ok, err, want)
	}
	if d, ok, err := parseDropped([]byte(`{"nftables": []}`)); err != nil || ok {
		t.Errorf("without a cut: %v, %v, %v, want false", d, ok, err)
	}
	if _, _, err := parseDropped([]byte(`{`)); err == nil {
		t.Error("a broken listing is no error")
	}
}
