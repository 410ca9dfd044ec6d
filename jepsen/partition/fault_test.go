//go:build linux

package main

import (
	"slices"
	"strings"
	"testing"
)

func TestPairs(t *testing.T) {
	a, b := []string{"n1", "n2"}, []string{"n3"}
	for _, c := range []struct {
		name    string
		between func(a, b []string) [][2]string
		want    [][2]string
	}{
		{"across", across, [][2]string{{"n1", "n3"}, {"n2", "n3"}}},
		{"both ways", bothWays, [][2]string{{"n1", "n3"}, {"n2", "n3"}, {"n3", "n1"}, {"n3", "n2"}}},
		{"one pair", onePair, [][2]string{{"n1", "n3"}}},
		{"every pair", everyPair, [][2]string{{"n1", "n2"}, {"n1", "n3"}, {"n2", "n1"}, {"n2", "n3"}, {"n3", "n1"}, {"n3", "n2"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := c.between(a, b); !slices.Equal(got, c.want) {
				t.Errorf("pairs %v, want %v", got, c.want)
			}
		})
	}
}

func TestFaultRules(t *testing.T) {
	rules, err := fault{[][2]string{{"n1", "n2"}}, "ip protocol udp"}.rules()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`set cut { type ifname . ifname; elements = { "n1" . "n2" } }`,
		`set between { type ifname . ifname; elements = { "n1" . "n2", "n2" . "n1" } }`,
		`@cut ip protocol udp counter name "dropped" drop`,
	} {
		if !strings.Contains(rules, want) {
			t.Errorf("rules\n%s\nlack %s", rules, want)
		}
	}
	for name, f := range map[string]fault{
		"no pair":   {},
		"injection": {cut: [][2]string{{"n1", "n2\" ; drop"}}},
		"no name":   {cut: [][2]string{{"", "n2"}}},
	} {
		if rules, err := f.rules(); err == nil {
			t.Errorf("%s: no error, but\n%s", name, rules)
		}
	}
}

func TestParseCounted(t *testing.T) {
	listing := `{"nftables": [{"metainfo": {"version": "1.0.6"}},
		{"counter": {"family": "bridge", "table": "partition_fault", "name": "dropped", "packets": 30, "bytes": 1}},
		{"counter": {"family": "bridge", "table": "partition_fault", "name": "passed", "packets": 70, "bytes": 1}}]}`
	c, err := parseCounted([]byte(listing))
	if want := (counted{30, 70}); err != nil || c != want || c.share() != 0.3 {
		t.Errorf("parseCounted = %+v (share %v), %v, want %+v", c, c.share(), err, want)
	}
	for _, broken := range []string{`{`, `{"nftables": []}`} {
		if c, err := parseCounted([]byte(broken)); err == nil {
			t.Errorf("%s: no error, but %+v", broken, c)
		}
	}
}
