package calls_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meshkv/meshkv/consensus/calls"
)

// A sequencer takes calls of kind 1 and keeps them until they are carried out.
type sequencer struct {
	handlerFunc
	mu    sync.Mutex // protects the fields below
	taken []func([]byte, error)
	order []string
}

func (s *sequencer) Take(_ string, kind calls.Kind, body []byte, answer func([]byte, error)) bool {
	if kind != 1 {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken = append(s.taken, answer)
	s.order = append(s.order, string(body))
	return true
}

// runSequenced is run with a server of s.
func runSequenced(t *testing.T, s *sequencer, server *calls.Options, test func(t *testing.T, r *rig)) {
	t.Helper()
	run(t, s.handlerFunc, nil, server, func(t *testing.T, r *rig) {
		r.server = calls.NewServer(s, server)
		test(t, r)
	})
}

// What is started comes in that order, beside other calls, and its answers whenever they
// are given.
func TestStart(t *testing.T) {
	const n = 100
	s := &sequencer{handlerFunc: echo}
	runSequenced(t, s, nil, func(t *testing.T, r *rig) {
		var got []string
		for i := range n {
			body := fmt.Append(nil, i)
			if err := r.client.Start("b", "g", 1, body, func(answer []byte, err error) { got = append(got, fmt.Sprint(string(answer), err)) }); err != nil {
				t.Fatal(err)
			}
			clear(body) // it is the caller's again
		}
		answer, err := r.client.Call(t.Context(), "b", "g", 2, []byte("beside"))
		if err != nil || string(answer) == "" {
			t.Fatalf("a call that nobody takes: %q, %v", answer, err)
		}
		synctest.Wait()
		for i, body := range s.order {
			if body != fmt.Sprint(i) {
				t.Fatalf("call %d was %q", i, body)
			}
		}
		if len(s.order) != n || len(got) != 0 {
			t.Fatalf("%d came, %d were answered", len(s.order), len(got))
		}
		for i := range s.taken {
			if i%2 == 0 {
				s.taken[i]([]byte("done"), nil)
			} else {
				s.taken[i](nil, &calls.Refusal{Code: 3, Detail: "no"})
			}
		}
		synctest.Wait()
		if len(got) != n || got[0] != "done<nil>" || got[1] != "refused with code 3: no" {
			t.Fatalf("got %d, %q", len(got), got)
		}
	})
}

// Started calls end with the connection, in their order, and none is left.
func TestStartedEndWithTheConnection(t *testing.T) {
	s := &sequencer{handlerFunc: echo}
	runSequenced(t, s, nil, func(t *testing.T, r *rig) {
		var got []int
		for i := range 20 {
			err := r.client.Start("b", "g", 1, nil, func(_ []byte, err error) {
				wantErr(t, err, calls.ErrLost, io.EOF)
				got = append(got, i)
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		r.stop()
		synctest.Wait()
		for i, n := range got {
			if i != n {
				t.Fatalf("ended in the order %v", got)
			}
		}
		if len(got) != 20 || r.client.Stats().Lost != 20 {
			t.Fatalf("%d ended, %d counted", len(got), r.client.Stats().Lost)
		}
		for _, answer := range s.taken {
			answer([]byte("too late"), nil) // nobody waits, and nothing breaks
		}
		if err := r.client.Start("b", "g", 1, nil, func([]byte, error) { t.Error("it was called though not started") }); !errors.Is(err, calls.ErrNotSent) {
			t.Fatalf("got %v before the next connection may be made", err)
		}
		r.listen()
	})
}

// Calls that a sequencer keeps count as much as others.
func TestSequencedAreBounded(t *testing.T) {
	s := &sequencer{handlerFunc: echo}
	runSequenced(t, s, &calls.Options{MaxCalls: 5}, func(t *testing.T, r *rig) {
		overloaded := 0
		for range 8 {
			if err := r.client.Start("b", "g", 1, nil, func(_ []byte, err error) {
				if errors.Is(err, calls.ErrOverloaded) {
					overloaded++
				}
			}); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if len(s.taken) != 5 || overloaded != 3 {
			t.Fatalf("%d taken, %d overloaded", len(s.taken), overloaded)
		}
		for _, answer := range s.taken {
			answer(nil, nil)
		}
		r.mustBeside()
	})
}

// mustBeside makes a call that nobody takes and that has to get an answer.
func (r *rig) mustBeside() {
	r.t.Helper()
	if _, err := r.client.Call(r.t.Context(), "b", "g", 2, nil); err != nil {
		r.t.Fatal(err)
	}
}

// A connection that is silent ends though no call waits long enough to see it.
func TestSilenceWithShortCalls(t *testing.T) {
	run(t, echo, nil, nil, func(t *testing.T, r *rig) {
		ended := 0
		r.client = calls.NewClient(r.net.Dialer("a"), &calls.Options{Ended: func(node string) { ended++ }})
		r.must()
		r.net.Cut("a", "b")
		r.net.Heal("a", "b")
		begin := time.Now()
		for time.Since(begin) < 10*time.Second {
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			_, err := r.call(ctx)
			cancel()
			if err == nil {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		if took := time.Since(begin); took > 5*time.Second || ended != 1 {
			t.Errorf("answers after %v, %d connections ended", took, ended)
		}
	})
}
