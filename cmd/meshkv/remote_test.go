package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestTimeoutOfCalls(t *testing.T) {
	for given, want := range map[time.Duration]time.Duration{0: never, time.Minute: time.Minute, time.Millisecond: time.Millisecond} {
		a := newApp(nil, nil, nil, nil)
		a.timeout = given
		if got := a.dialOptions().Timeout; got != want {
			t.Errorf("--timeout %v: got %v, want %v", given, got, want)
		}
	}
}

// A watch whose node is gone for good says so and ends.
func TestWatchOfNodeThatIsGone(t *testing.T) {
	t.Parallel()
	node := newAgent(t, "host-1").start()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	stdout, w := io.Pipe()
	var stderr bytes.Buffer
	a := newApp(nil, w, &stderr, func(string) (string, bool) { return "", false })
	a.watchPatience = 300 * time.Millisecond
	code := make(chan int, 1)
	go func() {
		defer w.Close()
		code <- a.run(ctx, []string{"watch", "net", "--addr", node.http, "--timeout", "0"})
	}()
	r := bufio.NewReader(stdout)
	if line, err := r.ReadString('\n'); err != nil || line != "synced\n" {
		t.Fatalf("got %q, %v", line, err)
	}
	node.signal(syscall.SIGKILL)
	if line, err := r.ReadString('\n'); err != io.EOF {
		t.Errorf("got %q, %v; want the end", line, err)
	}
	if got := <-code; got != codeUnavailable {
		t.Errorf("code %d, want %d", got, codeUnavailable)
	}
	if line := stderr.String(); strings.Count(line, "\n") != 1 || !strings.Contains(line, node.http+" was not reachable for 300ms") {
		t.Errorf("got %q", line)
	}
}
