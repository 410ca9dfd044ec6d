// Command cluster measures three real agents on loopback: how long a Put takes
// to show in a watch on the other nodes, and how long a node that missed many
// puts takes to catch up.
//
//	make build && go -C bench run ./cluster -meshkv ../bin/meshkv
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/meshkv/meshkv/client"
)

func main() {
	bin := flag.String("meshkv", "../bin/meshkv", "the program, relative to bench/")
	puts := flag.Int("puts", 200, "spaced puts")
	space := flag.Duration("space", 20*time.Millisecond, "time between two of them")
	missed := flag.Int("missed", 10_000, "puts that the third node misses")
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	if err := run(ctx, *bin, *puts, *space, *missed); err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

// An agent is one meshkv process.
type agent struct {
	args []string
	api  string
	cmd  *exec.Cmd
	c    *client.Client
}

func freePort() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	defer ln.Close()
	return ln.Addr().String(), nil
}

// start runs the process and waits until it is ready and answers.
func (a *agent) start(ctx context.Context, log string) error {
	a.cmd = exec.Command(a.args[0], a.args[1:]...)
	f, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	defer f.Close()
	a.cmd.Stderr, a.cmd.Stdout = f, f
	if err := a.cmd.Start(); err != nil {
		return fmt.Errorf("start agent: %w", err)
	}
	return until(ctx, 20*time.Second, "agent "+a.api+" ready", func() bool {
		resp, err := http.Get("http://" + a.api + "/readyz")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
}

func (a *agent) kill() {
	if a.cmd != nil && a.cmd.Process != nil {
		a.cmd.Process.Kill()
		a.cmd.Wait()
		a.cmd = nil
	}
}

// until polls cond, every 5 ms, for at most limit.
func until(ctx context.Context, limit time.Duration, what string, cond func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: not within %s", what, limit)
		case <-tick.C:
		}
	}
	return nil
}

func run(ctx context.Context, bin string, puts int, space time.Duration, missed int) error {
	dir, err := os.MkdirTemp("", "meshkv-bench-")
	if err != nil {
		return fmt.Errorf("make a directory: %w", err)
	}
	defer os.RemoveAll(dir)
	agents := make([]*agent, 3)
	var seed string
	for i := range agents {
		mesh, err := freePort()
		if err != nil {
			return err
		}
		api, err := freePort()
		if err != nil {
			return err
		}
		name := fmt.Sprintf("n%d", i+1)
		a := &agent{api: api, args: []string{bin, "agent", "--name", name, "--data-dir", filepath.Join(dir, name), "--bind", mesh, "--http", api}}
		if i == 0 {
			seed = mesh
		} else {
			a.args = append(a.args, "--join", seed)
		}
		agents[i] = a
		defer a.kill()
		if err := a.start(ctx, filepath.Join(dir, name+".log")); err != nil {
			return err
		}
		if a.c, err = client.Dial(ctx, api, nil); err != nil {
			return fmt.Errorf("dial: %w", err)
		}
		defer a.c.Close()
	}
	if err := propagation(ctx, agents, puts, space); err != nil {
		return fmt.Errorf("propagation: %w", err)
	}
	if err := catchUp(ctx, agents, dir, missed); err != nil {
		return fmt.Errorf("catch up: %w", err)
	}
	return nil
}

func open(ctx context.Context, a *agent) (client.Keyspace, error) {
	ks, err := a.c.Keyspace(ctx, "bench")
	if err != nil {
		return nil, fmt.Errorf("open keyspace: %w", err)
	}
	return ks, nil
}

// propagation: from the call of Put on one node to the event on every other.
func propagation(ctx context.Context, agents []*agent, puts int, space time.Duration) error {
	ks, err := open(ctx, agents[0])
	if err != nil {
		return err
	}
	seen := make(chan string, 16)
	errs := make(chan error, len(agents))
	for _, a := range agents[1:] {
		other, err := open(ctx, a)
		if err != nil {
			return err
		}
		w, err := other.Watch(ctx, "p/", nil)
		if err != nil {
			return fmt.Errorf("watch: %w", err)
		}
		defer w.Close()
		for {
			ev, err := w.Next(ctx)
			if err != nil {
				return fmt.Errorf("watch: %w", err)
			}
			if ev.Type == client.EventSynced {
				break
			}
		}
		go func() {
			for {
				ev, err := w.Next(ctx)
				if err != nil {
					errs <- err
					return
				}
				if ev.Type == client.EventPut {
					seen <- ev.Entry.Key
				}
			}
		}()
	}
	value := make([]byte, 100)
	var last, call []float64
	for i := range puts {
		key := fmt.Sprintf("p/%06d", i)
		start := time.Now()
		if _, err := ks.Put(ctx, key, value, nil); err != nil {
			return fmt.Errorf("put: %w", err)
		}
		call = append(call, ms(time.Since(start)))
		for range agents[1:] {
			select {
			case got := <-seen:
				if got != key {
					return fmt.Errorf("saw %s while waiting for %s", got, key)
				}
			case err := <-errs:
				return fmt.Errorf("watch: %w", err)
			case <-ctx.Done():
				return fmt.Errorf("put %d never arrived: %w", i, ctx.Err())
			}
		}
		last = append(last, ms(time.Since(start)))
		time.Sleep(space) // puts are spaced: that is what is measured
	}
	fmt.Printf("put call, remote client, 3 agents, %d spaced puts of 100 B: p50 %.2f ms, p99 %.2f ms\n", puts, pct(call, 50), pct(call, 99))
	fmt.Printf("put to the last other node's watch: p50 %.2f ms, p99 %.2f ms, max %.2f ms\n", pct(last, 50), pct(last, 99), slices.Max(last))
	return equal(ctx, agents, "digests equal")
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func pct(v []float64, p int) float64 {
	s := slices.Sorted(slices.Values(v))
	return s[min(len(s)-1, len(s)*p/100)]
}

// equal waits until all agents give one digest.
func equal(ctx context.Context, agents []*agent, what string) error {
	start := time.Now()
	err := until(ctx, 30*time.Second, what, func() bool {
		var first client.Digest
		for i, a := range agents {
			ks, err := a.c.Keyspace(ctx, "bench")
			if err != nil {
				return false
			}
			d, err := ks.Digest(ctx)
			if err != nil || i > 0 && (d.Digest != first.Digest || d.Clock != first.Clock) {
				return false
			}
			first = d
		}
		return true
	})
	if err != nil {
		return err
	}
	fmt.Printf("%s: after %.0f ms\n", what, ms(time.Since(start)))
	return nil
}

// catchUp: the third agent is killed, misses puts, and starts again.
func catchUp(ctx context.Context, agents []*agent, dir string, missed int) error {
	ks, err := open(ctx, agents[0])
	if err != nil {
		return err
	}
	var took []float64
	for round := range 5 {
		agents[2].kill()
		value := make([]byte, 100)
		for i := range missed {
			if _, err := ks.Put(ctx, fmt.Sprintf("m/%02d/%08d", round, i), value, nil); err != nil {
				return fmt.Errorf("put: %w", err)
			}
		}
		want, err := ks.Digest(ctx)
		if err != nil {
			return fmt.Errorf("digest: %w", err)
		}
		begin := time.Now()
		if err := agents[2].start(ctx, filepath.Join(dir, "n3.log")); err != nil {
			return err
		}
		third, err := open(ctx, agents[2])
		if err != nil {
			return err
		}
		if err := until(ctx, 30*time.Second, "catch up", func() bool {
			d, err := third.Digest(ctx)
			return err == nil && d.Digest == want.Digest
		}); err != nil {
			return err
		}
		took = append(took, ms(time.Since(begin)))
	}
	fmt.Printf("killed with -9, missed %d puts, started again: equal after p50 %.0f ms, max %.0f ms, process start included (%d rounds)\n",
		missed, pct(took, 50), slices.Max(took), len(took))
	return equal(ctx, agents, "all digests equal")
}
