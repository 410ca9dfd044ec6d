package main

import (
	"context"
	"fmt"
	"iter"
	"strings"
	"testing"
	"time"

	"github.com/meshkv/meshkv/client"
)

// A fakeTyped is a keyspace that notes what it is asked to change, and shows what the tests
// say.
type fakeTyped struct {
	client.Keyspace
	changes  []string
	view     client.View
	elements []client.Element
	err      error
}

func (k *fakeTyped) Update(_ context.Context, changes []client.Change, o *client.UpdateOptions) (client.Version, error) {
	if err := client.CheckChanges(changes); err != nil {
		return client.Version{}, err
	}
	for _, c := range changes {
		text := fmt.Sprintf("%v %s", c.Verb, c.Key)
		if c.Path != nil {
			text += fmt.Sprintf(" %q", c.Path)
		}
		if c.Value != nil {
			text += fmt.Sprintf(" %s", c.Value)
		}
		if c.N != 0 || c.Bound != 0 {
			text += fmt.Sprintf(" %d/%d", c.N, c.Bound)
		}
		if c.TTL != 0 || c.Ephemeral || o.Durable || c.To != "" {
			text += fmt.Sprintf(" %v %v %v %s", c.TTL, c.Ephemeral, o.Durable, c.To)
		}
		k.changes = append(k.changes, text)
	}
	return client.Version{Inc: 1, Seq: 2}, k.err
}

func (k *fakeTyped) View(context.Context, string, *client.GetOptions) (client.View, error) {
	return k.view, k.err
}

func (k *fakeTyped) Elements(_ context.Context, _ string, o *client.ElementsOptions) iter.Seq2[client.Element, error] {
	return func(yield func(client.Element, error) bool) {
		if k.err != nil {
			yield(client.Element{}, k.err)
			return
		}
		n := 0
		for _, e := range k.elements {
			if e.Position <= o.After || o.Under != nil && (len(e.Path) < len(o.Under) || strings.Join(e.Path[:len(o.Under)], "/") != strings.Join(o.Under, "/")) {
				continue
			}
			if n++; !yield(e, nil) || n == o.Limit {
				return
			}
		}
	}
}

func TestTypeChanges(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		args, stdin string
		want        string // the changes, or part of the message
		code        int
	}{
		{"counter add k/a", "", "counter-add a 1/0", 0},
		{"counter add k/a 5 --durable", "", "counter-add a 5/0 0s false true ", 0},
		{"counter add k/a -- -5", "", "counter-add a -5/0", 0},
		{"counter add k/a -5", "", "a negative number stands behind --", codeUsage},
		{"counter add k/a 5 6", "", "one argument too many", codeUsage},
		{"counter add k/a five", "", "no whole number", codeUsage},
		{"counter add k", "", "names no key", codeUsage},
		{"counter add", "", "KS/KEY is missing", codeUsage},
		{"counter", "", "counter needs a command", codeUsage},
		{"counter sub k/a", "", "unknown command", codeUsage},
		{"counter reset k/a", "", "counter-reset a", 0},
		{"set add k/a x y --ttl 1h --ephemeral", "", `set-add a ["x"] 1h0m0s true false ; set-add a ["y"] 1h0m0s true false `, 0},
		{"set add k/a x --ttl=-1s", "", "a time to live is positive", codeUsage},
		{"set rm k/a/b x", "", `set-remove a/b ["x"]`, 0},
		{"set rm k/a", "", "ELEMENT is missing", codeUsage},
		{"map put k/a f 1", "", `map-put a ["f"] 1`, 0},
		{"map put k/a f g -", "from stdin", `map-put a ["f" "g"] from stdin`, 0},
		{"map put k/a f", "", "VALUE is missing", codeUsage},
		{"map put k/a 1 2 3 4 5 6 7 8 9 v", "", "1 to 8 fields", codeUsage},
		{"map rm k/a f g", "", `map-remove a ["f" "g"]`, 0},
		{"flag enable k/a", "", "flag-enable a", 0},
		{"flag disable k/a --inverse", "", "inverse-flag-disable a", 0},
		{"log append k/a 1 2", "", "log-append a 1; log-append a 2", 0},
		{"log cap k/a 10", "", "log-cap a 10/0", 0},
		{"log cap k/a 0", "", "1 to 4096", codeUsage},
		{"bounded create k/a 100", "", "bounded-create a 100/0", 0},
		{"bounded create k/a --bound -5 -- -4", "", "bounded-create a -4/-5", 0},
		{"bounded create k/a -- -4", "", "below the bound", codeUsage},
		{"bounded add k/a -- -3", "", "bounded-add a -3/0", 0},
		{"bounded transfer k/a n2 3", "", "bounded-transfer a 3/0 0s false false n2", 0},
		{"update k", `{"changes":[{"verb":"counter-add","key":"c","n":1},{"verb":"put","key":"r","value":"v","ttl":"1s"}]}`, "counter-add c 1/0; put r v 1s false false ", 0},
		{"update k", `{"changes":[{"verb":"nonsense","key":"c"}]}`, "change 1", codeUsage},
		{"update k", `{} {}`, "more than one value", codeUsage},
		{"update k", ``, "an update is", codeUsage},
	} {
		k := &fakeTyped{}
		r := fakeRun(t, &fakeNode{keyspace: k}, tt.stdin, strings.Fields(tt.args)...)
		got := strings.Join(k.changes, "; ")
		if tt.code != 0 {
			got = r.stderr
		}
		if r.code != tt.code || tt.code == 0 && got != tt.want || !strings.Contains(got, tt.want) || strings.Count(r.stderr, "\n") > 1 {
			t.Errorf("%s: got %d %q, want %d %q", tt.args, r.code, got, tt.code, tt.want)
		}
		if tt.code == 0 && !strings.HasSuffix(r.stdout, ", version 1-2\n") {
			t.Errorf("%s: printed %q", tt.args, r.stdout)
		}
	}
}

func TestTypeViews(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	counter := client.View{Key: "a", Type: client.TypeCounter, Number: -7, Version: client.Version{Inc: 1, Seq: 2}, Modified: at}
	bounded := client.View{Key: "a", Type: client.TypeBounded, Number: 7, Bound: 1, Rights: 3}
	element := func(value string, path ...string) client.Element {
		return client.Element{Path: path, Value: []byte(value), Position: client.Position(strings.Join(path, "/")), Origin: "n1", Modified: at}
	}
	fields := []client.Element{element("1", "a"), element("2\n", "b", "c"), element("\xff", "b", "d")}
	for _, tt := range []struct {
		args     string
		view     client.View
		elements []client.Element
		err      error
		want     string // stdout, or part of the message
		code     int
	}{
		{"counter get k/a", counter, nil, nil, "-7\n", 0},
		{"counter get k/a -o json", counter, nil, nil, `{"key":"a","type":"counter","value":-7,"version":"1-2","modified":"2026-01-02T03:04:05Z"}` + "\n", 0},
		{"counter get k/a", bounded, nil, nil, "bounded, not counter", codeError},
		{"counter get k/a", counter, nil, client.ErrNotFound, "not found", codeNotFound},
		{"bounded get k/a", bounded, nil, nil, "VALUE  BOUND  RIGHTS HERE\n7      1      3\n", 0},
		{"bounded get k/a -o raw", bounded, nil, nil, "7\n", 0},
		{"bounded add k/a 1", bounded, nil, &client.RightsError{Have: 1, Need: 2}, "it has 1 and 2 are needed", codeConflict},
		{"flag get k/a", client.View{Type: client.TypeInverseFlag, Enabled: true}, nil, nil, "true\n", 0},
		{"flag get k/a --inverse", client.View{Type: client.TypeFlag}, nil, nil, "flag, not inverse-flag", codeError},
		{"set ls k/a", client.View{}, []client.Element{element("", "x"), element("", "y\n")}, nil,
			"ELEMENT  ORIGIN  MODIFIED                  EXPIRES\nx        n1      2026-01-02T03:04:05.000Z  -\ny\\n      n1      2026-01-02T03:04:05.000Z  -\n", 0},
		{"set ls k/a -o raw --limit 1", client.View{}, []client.Element{element("", "x"), element("", "y")}, nil, "x\n", 0},
		{"set ls k/a -o raw --after eA", client.View{}, []client.Element{element("", "x"), element("", "y")}, nil, "y\n", 0},
		{"set ls k/a --after @", client.View{}, nil, nil, "no position", codeUsage},
		{"set ls k/a --limit=-1", client.View{}, nil, nil, "a limit is positive", codeUsage},
		{"set ls k/a", client.View{}, nil, client.ErrNotFound, "not found", codeNotFound},
		{"map get k/a -o raw", client.View{}, fields, nil, "a\t1\nb c\t2\\n\nb d\t\\xff\n", 0},
		{"map get k/a a", client.View{}, fields, nil, "1\n", 0},
		{"map get k/a b d -o raw", client.View{}, fields, nil, "\xff", 0},
		{"map get k/a b -o raw", client.View{}, fields, nil, "b c\t2\\n\nb d\t\\xff\n", 0},
		{"map get k/a x", client.View{}, fields, nil, "no such field", codeNotFound},
		{"map get k/a b d -o json", client.View{}, fields, nil, `{"path":["b","d"],"value_b64":"/w==","version":"","origin":"n1","modified":"2026-01-02T03:04:05Z","position":"Yi9k"}` + "\n", 0},
		{"log ls k/a", client.View{}, []client.Element{{Value: []byte("1\t2"), Origin: "n1", Modified: at, Position: "p"}}, nil,
			"MODIFIED                  ORIGIN  VALUE\n2026-01-02T03:04:05.000Z  n1      1\\t2\n", 0},
	} {
		k := &fakeTyped{view: tt.view, elements: tt.elements, err: tt.err}
		r := fakeRun(t, &fakeNode{keyspace: k}, "", strings.Fields(tt.args)...)
		got := r.stdout
		if tt.code != 0 {
			got = r.stderr
		}
		if r.code != tt.code || tt.code == 0 && got != tt.want || !strings.Contains(got, tt.want) {
			t.Errorf("%s: got %d %q, want %d %q", tt.args, r.code, got, tt.code, tt.want)
		}
	}
}
