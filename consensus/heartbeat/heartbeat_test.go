package heartbeat

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// pair is two coalescers; the second one is the node "b" of the first.
func pair(t *testing.T) (a, b *Coalescer) {
	t.Helper()
	b = New(nil, nil)
	a = New(func(_ context.Context, node string, body []byte) ([]byte, error) {
		if node != "b" {
			return nil, errors.New("no such node")
		}
		time.Sleep(time.Millisecond) // the way
		return b.Serve(body)
	}, nil)
	return a, b
}

func open(t *testing.T, c *Coalescer, name string) *Line {
	t.Helper()
	l, err := c.Line(name)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// Heartbeats of one window go with one message, and each gets the answer of its group.
func TestCoalesce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := pair(t)
		defer a.Close()
		defer b.Close()
		var wg sync.WaitGroup
		for i := range 50 {
			name := fmt.Sprint("g", i)
			from, to := open(t, a, name), open(t, b, name)
			to.Handle(func(got Beat) (Answer, bool) {
				if want := (Beat{Term: uint64(i), Leader: "a/1", Addr: "a"}); got != want {
					t.Errorf("%s: got %+v, want %+v", name, got, want)
				}
				return Answer{OK: i%2 == 0, Term: uint64(i), Last: uint64(2 * i), Commit: uint64(3 * i)}, i%5 != 0
			})
			wg.Go(func() {
				time.Sleep(time.Duration(i) * 100 * time.Microsecond)
				begin := time.Now()
				got, err := from.Send("b", Beat{Term: uint64(i), Leader: "a/1", Addr: "a"})
				if took := time.Since(begin); took > defaultWindow+time.Millisecond {
					t.Errorf("%s took %v", name, took)
				}
				want := Answer{OK: i%2 == 0, Term: uint64(i), Last: uint64(2 * i), Commit: uint64(3 * i)}
				if i%5 == 0 {
					if !errors.Is(err, ErrUnanswered) {
						t.Errorf("%s: got %v, want ErrUnanswered", name, err)
					}
				} else if err != nil || got != want {
					t.Errorf("%s: got %+v, %v, want %+v", name, got, err, want)
				}
			})
		}
		wg.Wait()
		if s := a.Stats(); s.Beats != 50 || s.Messages != 1 {
			t.Errorf("got %+v, want 50 heartbeats with 1 message", s)
		}
	})
}

// A question waits for no window, and for no heartbeat that does.
func TestAsk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := pair(t)
		defer b.Close()
		line := open(t, a, "g")
		open(t, b, "g").Handle(func(b Beat) (Answer, bool) { return Answer{OK: true, Term: b.Term}, true })
		var wg sync.WaitGroup
		wg.Go(func() {
			if got, err := line.Send("b", Beat{Term: 1}); err != nil || got.Term != 1 {
				t.Errorf("got %+v, %v", got, err)
			}
		})
		begin := time.Now()
		if got, err := line.Ask("b", Beat{Term: 2}); err != nil || got.Term != 2 {
			t.Errorf("got %+v, %v", got, err)
		}
		if took := time.Since(begin); took > time.Millisecond {
			t.Errorf("it took %v", took)
		}
		wg.Wait()
		a.Close()
		if _, err := line.Ask("b", Beat{}); !errors.Is(err, ErrClosed) {
			t.Errorf("after Close: got %v, want ErrClosed", err)
		}
	})
}

// Every way not to be answered ends Send.
func TestUnanswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := pair(t)
		line := open(t, a, "g")
		send := func(node string) error {
			_, err := line.Send(node, Beat{Term: 1})
			return err
		}
		if err := send("b"); !errors.Is(err, ErrUnanswered) {
			t.Errorf("without the group: got %v, want ErrUnanswered", err)
		}
		there := open(t, b, "g")
		if err := send("b"); !errors.Is(err, ErrUnanswered) {
			t.Errorf("without a handler: got %v, want ErrUnanswered", err)
		}
		if err := send("c"); err == nil || errors.Is(err, ErrUnanswered) {
			t.Errorf("without the node: got %v, want the error of the call", err)
		}
		there.Handle(func(Beat) (Answer, bool) { return Answer{}, true })
		if err := send("b"); err != nil {
			t.Error(err)
		}
		there.Close()
		if err := send("b"); !errors.Is(err, ErrUnanswered) {
			t.Errorf("after the other end closed: got %v, want ErrUnanswered", err)
		}
		ended := make(chan error)
		go func() { ended <- send("b") }()
		synctest.Wait()
		line.Close()
		if err := <-ended; !errors.Is(err, ErrClosed) {
			t.Errorf("closed meanwhile: got %v, want ErrClosed", err)
		}
		if _, err := a.Line("g"); err != nil {
			t.Errorf("open again: %v", err)
		}
		if _, err := a.Line("g"); !errors.Is(err, ErrTaken) {
			t.Errorf("open twice: got %v, want ErrTaken", err)
		}
		if _, err := a.Line(""); !errors.Is(err, ErrName) {
			t.Errorf("without a name: got %v, want ErrName", err)
		}
		a.Close()
		a.Close()
		b.Close()
		if err := send("b"); !errors.Is(err, ErrClosed) {
			t.Errorf("after all: got %v, want ErrClosed", err)
		}
		if _, err := a.Line("h"); !errors.Is(err, ErrClosed) {
			t.Errorf("line of a closed one: got %v, want ErrClosed", err)
		}
	})
}

// A call that hangs ends, and keeps no later one waiting.
func TestCallHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		calls := 0
		a := New(func(ctx context.Context, node string, body []byte) ([]byte, error) {
			mu.Lock()
			calls++
			hangs := calls == 1 || node == "c"
			mu.Unlock()
			if hangs {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			beats, err := decodeBeats(body)
			answers := []byte{version}
			for range beats {
				answers = appendAnswer(answers, Answer{}, true)
			}
			return answers, err
		}, nil)
		defer a.Close()
		var wg sync.WaitGroup
		begin := time.Now()
		g := open(t, a, "g")
		wg.Go(func() {
			if _, err := g.Send("b", Beat{}); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v, want the deadline", err)
			}
			if took := time.Since(begin); took != defaultWindow+defaultTimeout {
				t.Errorf("the first one took %v", took)
			}
		})
		time.Sleep(3 * defaultWindow / 2)
		if _, err := open(t, a, "h").Send("b", Beat{}); err != nil {
			t.Error(err)
		}
		if took := time.Since(begin); took != 2*defaultWindow {
			t.Errorf("the later one ended after %v", took)
		}
		wg.Wait()
		begin = time.Now()
		if _, err := g.Send("c", Beat{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the deadline", err)
		}
		if took := time.Since(begin); took != defaultWindow+defaultTimeout {
			t.Errorf("it took %v", took)
		}
	})
}

// Closing ends what waits for its window, and what is under way.
func TestCloseMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := New(func(ctx context.Context, _ string, _ []byte) ([]byte, error) { <-ctx.Done(); return nil, ctx.Err() }, nil)
		var wg sync.WaitGroup
		for i := range 10 {
			line := open(t, a, fmt.Sprint("g", i))
			wg.Go(func() {
				time.Sleep(time.Duration(i) * 10 * time.Millisecond)
				if _, err := line.Send("b", Beat{}); err == nil {
					t.Error("it was answered")
				}
			})
		}
		time.Sleep(55 * time.Millisecond)
		a.Close()
		wg.Wait()
	})
}

func genBeat(t *rapid.T) addressed {
	names := rapid.SampledFrom([]string{"", "a", "b/1", "node-7"})
	return addressed{names.Draw(t, "group"), Beat{Term: rapid.Uint64().Draw(t, "term"), Leader: names.Draw(t, "leader"), Addr: names.Draw(t, "addr")}}
}

func TestCodec(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		beats := rapid.SliceOfN(rapid.Custom(genBeat), 0, 5).Draw(t, "beats")
		b := appendBeats(nil, beats)
		got, err := decodeBeats(b)
		if err != nil || len(got) != len(beats) || len(beats) > 0 && !reflect.DeepEqual(got, beats) {
			t.Fatalf("got %+v, %v, want %+v", got, err, beats)
		}
		if _, err := decodeBeats(b[:rapid.IntRange(0, len(b)-1).Draw(t, "cut")]); err == nil {
			t.Fatal("a part of it was taken")
		}
		want := make([]*Answer, rapid.IntRange(0, 5).Draw(t, "answers"))
		answers := []byte{version}
		for i := range want {
			number := rapid.Uint64()
			a := Answer{OK: rapid.Bool().Draw(t, "ok"), Term: number.Draw(t, "term"), Last: number.Draw(t, "last"), Commit: number.Draw(t, "commit")}
			given := rapid.Bool().Draw(t, "given")
			if answers = appendAnswer(answers, a, given); given {
				want[i] = &a
			}
		}
		back, err := decodeAnswers(answers, len(want))
		if err != nil || !reflect.DeepEqual(back, want) {
			t.Fatalf("got %+v, %v, want %+v", back, err, want)
		}
		for _, n := range []int{len(want) - 1, len(want) + 1} {
			if _, err := decodeAnswers(answers, max(n, 0)); err == nil && n >= 0 {
				t.Fatalf("%d answers were taken for %d", len(want), n)
			}
		}
	})
}

// More than a message holds makes several.
func TestManyBeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := pair(t)
		defer a.Close()
		defer b.Close()
		var wg sync.WaitGroup
		for i := range maxBeats + 1 {
			name := fmt.Sprint("g", i)
			open(t, b, name).Handle(func(Beat) (Answer, bool) { return Answer{OK: true}, true })
			line := open(t, a, name)
			wg.Go(func() {
				if _, err := line.Send("b", Beat{Term: 1}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if s := a.Stats(); s.Messages != 2 {
			t.Errorf("got %+v, want 2 messages", s)
		}
	})
}

func FuzzDecodeBeats(f *testing.F) {
	f.Add(appendBeats(nil, []addressed{{"g", Beat{1, "a/1", "a"}}, {"h", Beat{2, "a/1", "a"}}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		beats, err := decodeBeats(b)
		if err != nil {
			return
		}
		again, err := decodeBeats(appendBeats(nil, beats))
		if err != nil || !reflect.DeepEqual(again, beats) {
			t.Fatalf("got %+v, %v, want %+v", again, err, beats)
		}
	})
}

func FuzzDecodeAnswers(f *testing.F) {
	f.Add(appendAnswer(appendAnswer([]byte{version}, Answer{true, 1, 2, 3}, true), Answer{}, false), 2)
	f.Fuzz(func(t *testing.T, b []byte, n int) {
		answers, err := decodeAnswers(b, min(max(n, 0), maxBeats))
		if err != nil {
			return
		}
		again := []byte{version}
		for _, a := range answers {
			if a == nil {
				a = new(Answer)
				again = appendAnswer(again, *a, false)
			} else {
				again = appendAnswer(again, *a, true)
			}
		}
		if len(again) > len(b) || len(again) == len(b) && !bytes.Equal(again, b) {
			t.Fatalf("got %x, want %x", again, b)
		}
	})
}

// A heartbeat stands: the node gets it once a window, and Send, which is called again
// 50 to 100 ms after each answer, returns in each second one. What happens to the follower it returns
// at once; it ends with Send, with the line, and with another one in its place.
func TestStanding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := pair(t)
		defer a.Close()
		defer b.Close()
		var mu sync.Mutex // protects the fields below
		var received []uint64
		answer, can := Answer{OK: true, Term: 1, Commit: 9}, true
		set := func(with Answer, ok bool) {
			mu.Lock()
			defer mu.Unlock()
			answer, can = with, ok
		}
		count := func() int {
			mu.Lock()
			defer mu.Unlock()
			return len(received)
		}
		open(t, b, "g").Handle(func(b Beat) (Answer, bool) {
			mu.Lock()
			defer mu.Unlock()
			received = append(received, b.Term)
			return answer, can
		})
		line := open(t, a, "g")
		begin, sends := time.Now(), 0
		for time.Since(begin) < 10*time.Second {
			called := time.Now()
			if got, err := line.Send("b", Beat{Term: 1}); err != nil || got != answer {
				t.Fatalf("got %+v, %v, want %+v", got, err, answer)
			}
			if took := time.Since(called); took > defaultHold+defaultWindow {
				t.Errorf("Send took %v", took)
			}
			time.Sleep(time.Duration(50+sends%50) * time.Millisecond)
			sends++
		}
		if n := count(); n < 65 || n > 68 || sends < n/2 || sends > n/2+1 {
			t.Errorf("%d were received in 10 s, and Send returned %d times", n, sends)
		}

		for _, c := range []struct {
			name   string
			answer Answer
			can    bool
		}{
			{"refused", Answer{Term: 1, Commit: 9}, true},
			{"a later term", Answer{OK: true, Term: 2, Commit: 9}, true},
			{"started anew", Answer{OK: true, Term: 1}, true},
			{"unanswered", Answer{}, false},
		} {
			set(Answer{OK: true, Term: 1, Commit: 9}, true)
			for range 2 {
				if _, err := line.Send("b", Beat{Term: 1}); err != nil {
					t.Fatal(err)
				}
			}
			set(c.answer, c.can)
			called := time.Now()
			got, err := line.Send("b", Beat{Term: 1})
			if got != c.answer || c.can != (err == nil) {
				t.Errorf("%s: got %+v, %v", c.name, got, err)
			}
			if took := time.Since(called); took > defaultWindow+time.Millisecond {
				t.Errorf("%s: Send took %v", c.name, took)
			}
		}

		set(Answer{OK: true, Term: 2}, true)
		for _, term := range []uint64{1, 2} {
			if _, err := line.Send("b", Beat{Term: term}); err != nil {
				t.Fatal(err)
			}
		}
		before := count()
		time.Sleep(10 * time.Second)
		mu.Lock()
		for _, term := range received[before:] {
			if term != 2 {
				t.Errorf("term %d was sent after term 2", term)
			}
		}
		if n := len(received) - before; n != lapse {
			t.Errorf("%d were sent after the last Send", n)
		}
		mu.Unlock()
		if _, err := line.Send("b", Beat{Term: 3}); err != nil {
			t.Fatal(err)
		}
		before = count()
		line.Close()
		time.Sleep(time.Second)
		if n := count(); n != before {
			t.Errorf("%d were sent after Close", n-before)
		}
	})
}

// A message that hangs keeps Send from no answer that came after the call, and lines
// whose turns are in the same window return together.
func TestHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, b := pair(t)
		defer b.Close()
		var calls atomic.Int32
		a := New(func(ctx context.Context, _ string, body []byte) ([]byte, error) {
			if calls.Add(1) > 2 {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return b.Serve(body)
		}, nil)
		defer a.Close()
		want := Answer{OK: true, Term: 1, Commit: 9}
		begin := time.Now()
		var wg sync.WaitGroup
		for i := range 10 {
			name := fmt.Sprint("g", i)
			open(t, b, name).Handle(func(Beat) (Answer, bool) { return want, true })
			line := open(t, a, name)
			wg.Go(func() {
				if got, err := line.Send("b", Beat{Term: 1}); err != nil || got != want {
					t.Errorf("got %+v, %v, want %+v", got, err, want)
				}
				time.Sleep(time.Duration(50+5*i) * time.Millisecond)
				if got, err := line.Send("b", Beat{Term: 1}); err != nil || got != want {
					t.Errorf("later: got %+v, %v, want %+v", got, err, want)
				}
				if took := time.Since(begin); took != 3*defaultWindow {
					t.Errorf("it took %v", took)
				}
				time.Sleep(50 * time.Millisecond)
				if _, err := line.Send("b", Beat{Term: 1}); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("without an answer: got %v, want the deadline", err)
				}
			})
		}
		wg.Wait()
	})
}

// As long as somebody takes the answers, Send returns for nothing else; it does when they
// are not taken any more, at once when that is over, or when the follower says something new.
func TestTake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := pair(t)
		defer a.Close()
		defer b.Close()
		var term atomic.Uint64
		term.Store(1)
		open(t, b, "g").Handle(func(Beat) (Answer, bool) { return Answer{OK: true, Term: term.Load()}, true })
		line := open(t, a, "g")
		var taken, refuses atomic.Int32
		stop := line.Take("b", func(b Beat, a Answer) bool {
			if b.Term != 1 || a.Term != 1 {
				t.Errorf("got %+v for %+v", a, b)
			}
			taken.Add(1)
			return refuses.Load() == 0
		})
		ended := make(chan error)
		send := func() {
			if _, err := line.Send("b", Beat{Term: 1}); err != nil { // the first answer is news
				t.Error(err)
			}
			time.Sleep(50 * time.Millisecond)
			go func() {
				_, err := line.Send("b", Beat{Term: 1})
				ended <- err
			}()
			taken.Store(0)
			time.Sleep(10 * time.Second)
			if n := taken.Load(); n < 66 || n > 67 {
				t.Errorf("%d answers were taken in 10 s", n)
			}
			select {
			case err := <-ended:
				t.Errorf("Send returned: %v", err)
			default:
			}
		}
		for _, c := range []struct {
			name string
			do   func()
			most time.Duration
		}{
			{"not taken", func() { refuses.Store(1) }, 2 * defaultWindow},
			{"a later term", func() { term.Store(2) }, defaultWindow + time.Millisecond},
			{"stopped", stop, 0},
		} {
			refuses.Store(0)
			term.Store(1)
			time.Sleep(time.Second) // nothing stands
			send()
			c.do()
			begin := time.Now()
			if err := <-ended; err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
			if took := time.Since(begin); took > c.most {
				t.Errorf("%s: Send returned after %v", c.name, took)
			}
		}
	})
}

// What a follower says first after it was started anew is news to whoever waits next, though
// nobody did when it came, and although Take has others told of what follows.
func TestNewsWhileNobodyWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := pair(t)
		defer a.Close()
		defer b.Close()
		var commit atomic.Uint64
		commit.Store(9)
		open(t, b, "g").Handle(func(Beat) (Answer, bool) { return Answer{OK: true, Term: 1, Commit: commit.Load()}, true })
		line := open(t, a, "g")
		if _, err := line.Send("b", Beat{Term: 1}); err != nil {
			t.Fatal(err)
		}
		commit.Store(0)
		time.Sleep(defaultWindow + 10*time.Millisecond) // late: nobody waits for this one
		defer line.Take("b", func(Beat, Answer) bool { return true })()
		told := make(chan Answer, 1)
		go func() {
			if got, err := line.Send("b", Beat{Term: 1}); err == nil {
				told <- got
			}
		}()
		time.Sleep(2 * defaultWindow)
		select {
		case got := <-told:
			if got.Commit != 0 {
				t.Errorf("got %+v", got)
			}
		default:
			t.Error("Send does not return")
		}
	})
}

// An answer that is old, since the process stood still, is not given as if it were new.
func TestStoodStill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := pair(t)
		defer b.Close()
		defer a.Close()
		var gone atomic.Bool
		open(t, b, "g").Handle(func(Beat) (Answer, bool) { return Answer{OK: true, Term: 1}, !gone.Load() })
		line := open(t, a, "g")
		if _, err := line.Send("b", Beat{Term: 1}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
		ended := make(chan error, 1)
		go func() {
			_, err := line.Send("b", Beat{Term: 1})
			ended <- err
		}()
		time.Sleep(defaultWindow)
		gone.Store(true)
		a.due(time.Now().Add(time.Second)) // as after a stop
		synctest.Wait()
		select {
		case err := <-ended:
			t.Errorf("it was told: %v", err)
		default:
		}
		if err := <-ended; !errors.Is(err, ErrUnanswered) {
			t.Errorf("got %v, want ErrUnanswered", err)
		}
	})
}

// Who rests tells nobody that it leads, and waits for nothing.
func TestRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := pair(t)
		defer b.Close()
		defer a.Close()
		open(t, b, "g").Handle(func(Beat) (Answer, bool) { return Answer{OK: true, Term: 1}, true })
		line := open(t, a, "g")
		for _, waits := range []bool{false, true} {
			if _, err := line.Send("b", Beat{Term: 1}); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			if waits {
				go func() {
					_, err := line.Send("b", Beat{Term: 1})
					ended <- err
				}()
				synctest.Wait()
			}
			before := a.Stats().Beats
			line.Rest()
			if waits {
				synctest.Wait()
				select {
				case err := <-ended:
					if err != nil {
						t.Error(err)
					}
				default:
					t.Error("Send still waits")
				}
			}
			time.Sleep(time.Second)
			if n := a.Stats().Beats - before; n != 0 {
				t.Errorf("%d heartbeats after it", n)
			}
		}
	})
}
