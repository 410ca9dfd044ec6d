package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"strings"
	"testing"

	"github.com/meshkv/meshkv/client"
)

// Who observes an election sees who leads, a new value, and that nobody leads.
func TestObserve(t *testing.T) {
	t.Parallel()
	for form, want := range map[string][]string{
		"table": {"nobody leads", "leader   one  (token 1)", "leader   two  (token 1)", "nobody leads"},
		"raw":   {"", "one", "two", ""},
		"json": {
			`{"leader":"","known":true}`, `{"leader":"1","value":"one","token":1,"known":true}`,
			`{"leader":"1","value":"two","token":1,"known":true}`, `{"leader":"","known":true}`,
		},
	} {
		n, s := aStrong(t)
		ctx, cancel := context.WithCancelCause(t.Context())
		defer cancel(nil)
		stdout, w := io.Pipe()
		var stderr bytes.Buffer
		a := newApp(nil, w, &stderr, func(string) (string, bool) { return "", false })
		a.dial = func(context.Context, string, *client.DialOptions) (remoteNode, error) { return n, nil }
		code := make(chan int, 1)
		go func() {
			defer w.Close()
			code <- a.run(ctx, []string{"elect", "s/leader", "--observe", "-o", form})
		}()
		lines := bufio.NewReader(stdout)
		next := func(want string) {
			t.Helper()
			if got, err := lines.ReadString('\n'); got != want+"\n" {
				t.Errorf("%s: got %q, %v; want %q", form, got, err, want)
			}
		}
		next(want[0])
		l, err := s.Campaign(t.Context(), "leader", []byte("one"), nil)
		if err != nil {
			t.Fatal(err)
		}
		next(want[1])
		if err := l.Proclaim(t.Context(), []byte("two")); err != nil {
			t.Fatal(err)
		}
		next(want[2])
		if err := l.Unlock(t.Context()); err != nil {
			t.Fatal(err)
		}
		next(want[3])
		cancel(errInterrupted)
		io.Copy(io.Discard, lines) // to its end
		if got := <-code; got != codeInterrupted || stderr.String() != "meshkv: interrupted\n" {
			t.Errorf("%s: code %d, %q", form, got, stderr.String())
		}
	}
}

func TestLeaderUnknown(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		leader client.Leader
		want   string
	}{
		{client.Leader{}, "unknown  (no majority answers; nobody led)\n"},
		{client.Leader{Elected: true, Value: []byte("\x1b[2J"), Token: 4}, `unknown  (no majority answers; \x1b[2J led, token 4)` + "\n"},
	} {
		var out strings.Builder
		if err := printLeader(&out, formatTable, c.leader); err != nil || out.String() != c.want {
			t.Errorf("got %q, %v; want %q", out.String(), err, c.want)
		}
	}
}
