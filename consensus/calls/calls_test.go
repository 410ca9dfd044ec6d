package calls_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meshkv/meshkv/consensus/calls"
	"github.com/meshkv/meshkv/consensus/streams/memnet"
)

type handlerFunc func(ctx context.Context, group string, kind calls.Kind, body []byte) ([]byte, error)

func (f handlerFunc) Serve(ctx context.Context, group string, kind calls.Kind, body []byte) ([]byte, error) {
	return f(ctx, group, kind, body)
}

// A rig is a client at "a" and a server at "b" with its connections.
type rig struct {
	t      *testing.T
	net    *memnet.Network
	client *calls.Client
	server *calls.Server
	dials  atomic.Int64
	ended  chan error // what ServeConn returned
	stop   func()     // the server, with its connections
}

// run runs test with a server of h in virtual time, and checks that nothing stays behind.
func run(t *testing.T, h handlerFunc, client, server *calls.Options, test func(t *testing.T, r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &rig{t: t, net: memnet.New(), ended: make(chan error, 64), server: calls.NewServer(h, server)}
		dial := r.net.Dialer("a")
		r.client = calls.NewClient(func(ctx context.Context, node string) (net.Conn, error) {
			r.dials.Add(1)
			return dial(ctx, node)
		}, client)
		r.listen()
		test(t, r)
		for range 2 {
			if err := r.client.Close(); err != nil {
				t.Error(err)
			}
		}
		if _, err := r.call(t.Context()); !errors.Is(err, calls.ErrClosed) || !errors.Is(err, calls.ErrNotSent) {
			t.Errorf("got %v of a closed client", err)
		}
		r.stop()
	})
}

// listen lets "b" accept connections, until stop.
func (r *rig) listen() {
	r.t.Helper()
	ln, err := r.net.Listen("b")
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { r.ended <- r.server.ServeConn(ctx, conn) })
		}
	})
	r.stop = func() {
		cancel()
		_ = ln.Close()
		wg.Wait()
	}
}

func (r *rig) call(ctx context.Context) ([]byte, error) {
	return r.client.Call(ctx, "b", "g", 1, []byte("x"))
}

// start makes a call in the background; the channel gets its error.
func (r *rig) start(ctx context.Context) <-chan error {
	got := make(chan error, 1)
	go func() {
		_, err := r.call(ctx)
		got <- err
	}()
	synctest.Wait()
	return got
}

// must makes a call that has to get an answer.
func (r *rig) must() {
	r.t.Helper()
	if _, err := r.call(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
}

func wantErr(t *testing.T, got error, want ...error) {
	t.Helper()
	for _, w := range want {
		if !errors.Is(got, w) {
			t.Errorf("got error %v, want %v", got, w)
		}
	}
	if errors.Is(got, calls.ErrNotSent) && errors.Is(got, calls.ErrLost) {
		t.Errorf("%v has two outcomes", got)
	}
}

// echo answers at once.
func echo(_ context.Context, group string, kind calls.Kind, body []byte) ([]byte, error) {
	return fmt.Appendf(nil, "%s %d %s", group, kind, body), nil
}

// block waits for the end of its context.
func block(ctx context.Context, _ string, _ calls.Kind, _ []byte) ([]byte, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestAnswers(t *testing.T) {
	long := bytes.Repeat([]byte("x"), calls.MaxBody)
	h := func(ctx context.Context, group string, kind calls.Kind, body []byte) ([]byte, error) {
		switch kind {
		case 1:
			return echo(ctx, group, kind, body)
		case 2:
			return nil, fmt.Errorf("wrapped: %w", &calls.Refusal{Code: 3, Detail: strings.Repeat("d", calls.MaxDetail+1)})
		case 3:
			return nil, errors.New("the disk is gone")
		case 4:
			return body, nil
		}
		return append(body, 0), nil
	}
	run(t, h, nil, nil, func(t *testing.T, r *rig) {
		ctx := t.Context()
		if got, err := r.client.Call(ctx, "b", "g#1", 1, []byte("body")); err != nil || string(got) != "g#1 1 body" {
			t.Errorf("got %q, %v", got, err)
		}
		_, err := r.client.Call(ctx, "b", "g", 2, nil)
		if refusal, ok := errors.AsType[*calls.Refusal](err); !ok || refusal.Code != 3 || len(refusal.Detail) != calls.MaxDetail {
			t.Errorf("got %v", err)
		}
		if _, err = r.client.Call(ctx, "b", "g", 3, nil); !errors.Is(err, calls.ErrLost) || !strings.Contains(err.Error(), "the disk is gone") {
			t.Errorf("got %v", err)
		}
		for _, n := range []int{0, 1, 60 << 10, 64 << 10, 1 << 20, calls.MaxBody} {
			if got, err := r.client.Call(ctx, "b", "g", 4, long[:n]); err != nil || !bytes.Equal(got, long[:n]) {
				t.Errorf("got %d bytes, %v, want %d", len(got), err, n)
			}
		}
		_, err = r.client.Call(ctx, "b", "g", 5, long)
		wantErr(t, err, calls.ErrLost)
		_, err = r.client.Call(ctx, "b", "g", 4, make([]byte, calls.MaxBody+1))
		wantErr(t, err, calls.ErrInvalid)
		_, err = r.client.Call(ctx, "b", strings.Repeat("g", calls.MaxGroup+1), 4, nil)
		wantErr(t, err, calls.ErrInvalid)
		if got, want := r.client.Stats(), (calls.ClientStats{Dials: 1, Calls: 10, Lost: 2}); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
		if got, want := r.server.Stats(), (calls.ServerStats{Conns: 1, Calls: 10}); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	})
}

// Calls that wait do not keep others waiting, and their answers come in any order.
func TestManyCallsAtATime(t *testing.T) {
	h := func(_ context.Context, _ string, kind calls.Kind, body []byte) ([]byte, error) {
		time.Sleep(time.Duration(255-kind) * time.Millisecond)
		return bytes.Clone(body), nil
	}
	run(t, h, nil, nil, func(t *testing.T, r *rig) {
		began := time.Now()
		var wg sync.WaitGroup
		for i := range 2000 {
			wg.Go(func() {
				body := fmt.Append(nil, i)
				if got, err := r.client.Call(t.Context(), "b", fmt.Sprint("g", i), calls.Kind(i), body); err != nil || !bytes.Equal(got, body) {
					t.Errorf("got %q, %v, want %q", got, err, body)
				}
			})
		}
		wg.Wait()
		if took := time.Since(began); took != 255*time.Millisecond {
			t.Errorf("took %v", took)
		}
		if n := r.dials.Load(); n != 1 {
			t.Errorf("%d connections", n)
		}
	})
}

// The context of a handler ends with the caller's.
func TestCancel(t *testing.T) {
	ends := make(chan time.Duration, 1)
	var began time.Time
	h := func(ctx context.Context, _ string, kind calls.Kind, _ []byte) ([]byte, error) {
		if deadline, ok := ctx.Deadline(); ok && kind == 1 {
			t.Errorf("there is a deadline, %v", deadline)
		}
		<-ctx.Done()
		ends <- time.Since(began)
		return nil, ctx.Err()
	}
	run(t, h, nil, nil, func(t *testing.T, r *rig) {
		began = time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		got := r.start(ctx)
		time.Sleep(time.Second)
		cancel()
		wantErr(t, <-got, calls.ErrLost, context.Canceled)
		if at := <-ends; at != time.Second {
			t.Errorf("ended after %v", at)
		}
		wantErr(t, <-r.start(ctx), calls.ErrNotSent, context.Canceled)
	})
}

// The deadline of the caller reaches the handler even if the caller does not any more.
func TestDeadline(t *testing.T) {
	ends := make(chan time.Duration, 1)
	var began time.Time
	h := func(ctx context.Context, _ string, _ calls.Kind, _ []byte) ([]byte, error) {
		<-ctx.Done()
		ends <- time.Since(began)
		return nil, ctx.Err()
	}
	run(t, h, nil, nil, func(t *testing.T, r *rig) {
		began = time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		got := r.start(ctx)
		// The handler ends in the same moment: its answer is not to come first.
		for _, reply := range []bool{false, true} {
			flow := memnet.Flow{Dialer: "a", Acceptor: "b", Reply: reply}
			r.net.Hold(flow)
			defer r.net.Release(flow)
		}
		wantErr(t, <-got, calls.ErrLost, context.DeadlineExceeded)
		if at := <-ends; at != time.Second {
			t.Errorf("ended after %v", at)
		}
	})
}

// What was withdrawn before it was written is never carried out.
func TestWithdrawnIsNotDelivered(t *testing.T) {
	run(t, echo, nil, nil, func(t *testing.T, r *rig) {
		r.net.Cut("a", "b") // dialing waits
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		first, second := r.start(ctx), r.start(t.Context())
		wantErr(t, <-first, calls.ErrNotSent, context.DeadlineExceeded)
		r.net.Heal("a", "b")
		if err := <-second; err != nil {
			t.Error(err)
		}
		if n := r.server.Stats().Calls; n != 1 {
			t.Errorf("%d calls were carried out, want 1", n)
		}
	})
}

// A connection is made again by a call, after 50 ms doubling to 1 s; calls before that
// fail at once.
func TestBackoff(t *testing.T) {
	run(t, echo, nil, nil, func(t *testing.T, r *rig) {
		r.must()
		r.stop()
		synctest.Wait()
		for i, pause := range []time.Duration{50, 100, 200, 400, 800, 1000, 1000} {
			pause *= time.Millisecond
			began := time.Now()
			for _, at := range []time.Duration{0, pause - time.Millisecond} {
				time.Sleep(time.Until(began.Add(at)))
				_, err := r.call(t.Context())
				wantErr(t, err, calls.ErrNotSent)
				if n := r.dials.Load(); n != int64(i+1) {
					t.Errorf("%d dials before %v were over, want %d", n, pause, i+1)
				}
			}
			time.Sleep(time.Millisecond)
			if i == 6 {
				r.listen()
				r.must()
				break
			}
			_, err := r.call(t.Context())
			wantErr(t, err, calls.ErrNotSent)
		}
		r.stop()
		synctest.Wait()
		time.Sleep(50 * time.Millisecond) // it begins again
		r.listen()
		r.must()
	})
}

// A connection on which calls wait and nothing comes is given up after 4 s by both ends.
func TestSilence(t *testing.T) {
	ends := make(chan struct{})
	h := func(ctx context.Context, _ string, kind calls.Kind, _ []byte) ([]byte, error) {
		<-ctx.Done()
		close(ends)
		return nil, ctx.Err()
	}
	run(t, h, nil, nil, func(t *testing.T, r *rig) {
		got := r.start(t.Context())
		time.Sleep(time.Hour) // it is only the call that takes long
		select {
		case err := <-got:
			t.Fatal(err)
		default:
		}
		r.net.Cut("a", "b")
		began := time.Now()
		wantErr(t, <-got, calls.ErrLost, calls.ErrSilent)
		<-ends
		if took := time.Since(began); took < 2*time.Second || took > 6*time.Second {
			t.Errorf("took %v", took)
		}
		wantErr(t, <-r.ended, calls.ErrSilent)
		r.net.Heal("a", "b")
	})
}

// A connection without calls says nothing, and is there after hours.
func TestIdleIsQuiet(t *testing.T) {
	var written atomic.Int64
	run(t, echo, nil, nil, func(t *testing.T, r *rig) {
		dial := r.net.Dialer("c")
		client := calls.NewClient(func(ctx context.Context, node string) (net.Conn, error) {
			conn, err := dial(ctx, node)
			return countedConn{conn, &written}, err
		}, nil)
		call := func() {
			if _, err := client.Call(t.Context(), "b", "g", 1, nil); err != nil {
				t.Error(err)
			}
		}
		call()
		before := written.Load()
		time.Sleep(time.Hour)
		if n := written.Load(); n != before {
			t.Errorf("%d writes in an hour", n-before)
		}
		call()
		if err := client.Close(); err != nil {
			t.Error(err)
		}
		if n := r.server.Stats().Conns; n != 1 {
			t.Errorf("%d connections", n)
		}
	})
}

type countedConn struct {
	net.Conn
	writes *atomic.Int64
}

func (c countedConn) Write(b []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(b)
}

// The end of a connection ends calls and handlers.
func TestServerStops(t *testing.T) {
	run(t, block, nil, nil, func(t *testing.T, r *rig) {
		got := r.start(t.Context())
		r.stop()
		wantErr(t, <-got, calls.ErrLost)
		wantErr(t, <-r.ended)
	})
}

func TestCloseEndsCalls(t *testing.T) {
	run(t, block, nil, nil, func(t *testing.T, r *rig) {
		got := r.start(t.Context())
		if err := r.client.Close(); err != nil {
			t.Error(err)
		}
		wantErr(t, <-got, calls.ErrLost)
		if err := <-r.ended; err != nil {
			t.Error(err)
		}
	})
	run(t, block, nil, nil, func(t *testing.T, r *rig) {
		r.net.Cut("a", "b") // it is not even open
		got := r.start(t.Context())
		if err := r.client.Close(); err != nil {
			t.Error(err)
		}
		wantErr(t, <-got, calls.ErrNotSent)
	})
}

// An accepted stream that never greets is given up by both sides.
func TestNoGreeting(t *testing.T) {
	run(t, echo, nil, nil, func(t *testing.T, r *rig) {
		r.net.Hold(memnet.Flow{Dialer: "a", Acceptor: "b"})
		began := time.Now()
		wantErr(t, <-r.start(t.Context()), calls.ErrNotSent)
		if err := <-r.ended; err == nil {
			t.Error("the server did not mind")
		}
		if took := time.Since(began); took != 5*time.Second {
			t.Errorf("took %v", took)
		}
	})
}

func TestOverload(t *testing.T) {
	few := &calls.Options{MaxCalls: 3}
	for name, o := range map[string][2]*calls.Options{"client": {few, nil}, "server": {nil, few}} {
		t.Run(name, func(t *testing.T) {
			run(t, block, o[0], o[1], func(t *testing.T, r *rig) {
				ctx, cancel := context.WithCancel(t.Context())
				var waiting []<-chan error
				for range 3 {
					waiting = append(waiting, r.start(ctx))
				}
				_, err := r.call(t.Context())
				wantErr(t, err, calls.ErrOverloaded, calls.ErrNotSent)
				if n := r.client.Stats().Overloaded; n != 1 {
					t.Errorf("%d were counted", n)
				}
				cancel()
				for _, got := range waiting {
					wantErr(t, <-got, calls.ErrLost)
				}
				synctest.Wait()
				again, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				_, err = r.call(again)
				wantErr(t, err, calls.ErrLost)
			})
		})
	}
}

func TestBytesAreBounded(t *testing.T) {
	few := &calls.Options{MaxBytes: 1}
	t.Run("client", func(t *testing.T) {
		run(t, echo, few, nil, func(t *testing.T, r *rig) {
			r.net.Cut("a", "b")
			got := r.start(t.Context())
			_, err := r.call(t.Context())
			wantErr(t, err, calls.ErrOverloaded)
			r.net.Heal("a", "b")
			if err := <-got; err != nil {
				t.Error(err)
			}
			r.must()
		})
	})
	t.Run("server", func(t *testing.T) {
		run(t, block, nil, few, func(t *testing.T, r *rig) {
			ctx, cancel := context.WithCancel(t.Context())
			got := r.start(ctx)
			_, err := r.call(t.Context())
			wantErr(t, err, calls.ErrOverloaded)
			cancel()
			wantErr(t, <-got, calls.ErrLost)
			synctest.Wait()
			again, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err = r.call(again)
			wantErr(t, err, calls.ErrLost)
		})
	})
}

func TestGreeting(t *testing.T) {
	id := func(s string) *calls.Options { return &calls.Options{ClusterID: func() string { return s }} }
	for _, c := range []struct {
		client, server string
		want           error
	}{{"", "", nil}, {"x", "", nil}, {"", "x", nil}, {"x", "x", nil}, {"x", "y", calls.ErrCluster}} {
		t.Run(c.client+"-"+c.server, func(t *testing.T) {
			run(t, echo, id(c.client), id(c.server), func(t *testing.T, r *rig) {
				_, err := r.call(t.Context())
				if c.want == nil {
					if err != nil {
						t.Error(err)
					}
					return
				}
				wantErr(t, err, c.want, calls.ErrNotSent)
				wantErr(t, <-r.ended, c.want)
				_, err = r.call(t.Context())
				wantErr(t, err, c.want, calls.ErrNotSent) // without a dial, and with the reason
				if n := r.dials.Load(); n != 1 {
					t.Errorf("%d dials", n)
				}
				if n := r.server.Stats().Refused; n != 1 {
					t.Errorf("%d were counted", n)
				}
			})
		})
	}
}

// hostile are things that an end must not say, after a good greeting.
var hostile = map[string]struct {
	bytes  string
	client bool // the one who hears it
	server bool
}{
	"length":          {"\xff\xff\xff\xff", true, true},
	"type":            {"\x00\x00\x00\x09\x09\x00\x00\x00\x00\x00\x00\x00\x01", true, true},
	"unasked answer":  {"\x00\x00\x00\x09\x03\x00\x00\x00\x00\x00\x00\x00\x09", true, true},
	"cancel":          {"\x00\x00\x00\x09\x02\x00\x00\x00\x00\x00\x00\x00\x09", true, false},
	"number of calls": {strings.Repeat("\x00\x00\x00\x13\x01\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00", 2), true, true},
}

func TestHostileClient(t *testing.T) {
	for name, h := range hostile {
		if !h.server {
			continue
		}
		t.Run(name, func(t *testing.T) {
			run(t, echo, nil, nil, func(t *testing.T, r *rig) {
				conn, err := r.net.Dialer("a")(t.Context(), "b")
				if err != nil {
					t.Fatal(err)
				}
				if _, err := conn.Write([]byte("\x01\x00" + h.bytes)); err != nil {
					t.Fatal(err)
				}
				wantErr(t, <-r.ended, calls.ErrMalformed)
				if n := r.server.Stats().Malformed; n != 1 {
					t.Errorf("%d were counted", n)
				}
				if err := conn.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
	run(t, echo, nil, nil, func(t *testing.T, r *rig) {
		conn, err := r.net.Dialer("a")(t.Context(), "b")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte("\x02\x00")); err != nil {
			t.Fatal(err)
		}
		wantErr(t, <-r.ended, calls.ErrVersion)
		answer := make([]byte, 2)
		if _, err := io.ReadFull(conn, answer); err != nil || answer[0] != 1 {
			t.Errorf("got %v, %v: the client must learn the version", answer, err)
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestHostileServer(t *testing.T) {
	for name, h := range hostile {
		if !h.client {
			continue
		}
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := memnet.New()
				ln, err := n.Listen("b")
				if err != nil {
					t.Fatal(err)
				}
				client := calls.NewClient(n.Dialer("a"), nil)
				var wg sync.WaitGroup
				wg.Go(func() {
					conn, err := ln.Accept()
					if err != nil {
						t.Error(err)
						return
					}
					if _, err := conn.Write([]byte("\x01\x00")); err != nil {
						t.Error(err)
					}
					// The greeting and the request were read: what follows is an answer.
					if _, err := io.ReadFull(conn, make([]byte, 2+23+2)); err != nil {
						t.Error(err)
					}
					if _, err := conn.Write([]byte(h.bytes)); err != nil {
						t.Error(err)
					}
					_, _ = io.Copy(io.Discard, conn)
					_ = conn.Close()
				})
				_, err = client.Call(t.Context(), "b", "g", 1, []byte("x"))
				wantErr(t, err, calls.ErrLost, calls.ErrMalformed)
				wg.Wait()
				if n := client.Stats().Malformed; n != 1 {
					t.Errorf("%d were counted", n)
				}
				if err := client.Close(); err != nil {
					t.Error(err)
				}
				_ = ln.Close()
			})
		})
	}
}

// A caller who is gone and one who stays, at the moment of the answer: nobody gets
// another's, whatever the order.
func TestCancelMeetsAnswer(t *testing.T) {
	h := func(ctx context.Context, _ string, _ calls.Kind, body []byte) ([]byte, error) {
		time.Sleep(time.Millisecond)
		return bytes.Clone(body), nil
	}
	run(t, h, nil, nil, func(t *testing.T, r *rig) {
		var wg sync.WaitGroup
		for i := range 64 {
			wg.Go(func() {
				for j := range 50 {
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(1+(i+j)%2)*time.Millisecond)
					body := fmt.Append(nil, i, j)
					got, err := r.client.Call(ctx, "b", "g", 1, body)
					cancel()
					if err == nil && !bytes.Equal(got, body) {
						t.Errorf("got %q, want %q", got, body)
					}
					if err != nil && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, calls.ErrLost) {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
	})
}
