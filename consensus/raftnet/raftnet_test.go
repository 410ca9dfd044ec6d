package raftnet_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"github.com/meshkv/meshkv/consensus/raftnet"
	"github.com/meshkv/meshkv/consensus/streams"
	"github.com/meshkv/meshkv/consensus/streams/memnet"
)

// A rig is two nodes, "a" and "b", with a replica of group "g" each.
type rig struct {
	t       *testing.T
	network *memnet.Network
	a, b    *raftnet.Member
	stopB   func()
	over    chan struct{} // closed at the end of the test
}

// run runs test in virtual time, and checks that nothing stays behind.
func run(t *testing.T, test func(t *testing.T, r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &rig{t: t, network: memnet.New(), over: make(chan struct{})}
		var stopA func()
		r.a, stopA = r.node("a")
		r.b, r.stopB = r.node("b")
		test(t, r)
		close(r.over)
		r.stopB()
		stopA()
	})
}

// node starts a node with its replica.
func (r *rig) node(name string) (*raftnet.Member, func()) {
	r.t.Helper()
	ln, err := r.network.Listen(name)
	if err != nil {
		r.t.Fatal(err)
	}
	mux := streams.New(ln, r.network.Dialer(name))
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = mux.Run(ctx) })
	wire, err := raftnet.Open(mux, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	m, err := wire.Member("g", name)
	if err != nil {
		r.t.Fatal(err)
	}
	return m, sync.OnceFunc(func() {
		for range 2 {
			if err := errors.Join(m.Close(), wire.Close()); err != nil {
				r.t.Error(err)
			}
		}
		cancel()
		running.Wait()
	})
}

// serve answers what comes to "b" with what answer says, until the end of the test.
func (r *rig) serve(answer func(rpc raft.RPC) (any, error)) {
	go func() {
		for {
			select {
			case rpc := <-r.b.Consumer():
				rpc.Respond(answer(rpc))
			case <-r.over:
				return
			}
		}
	}()
}

func entries(from, n, size int) (logs []*raft.Log) {
	for i := range n {
		logs = append(logs, &raft.Log{Index: uint64(from + i), Term: 3, Data: bytes.Repeat([]byte{byte(from + i)}, size), AppendedAt: time.Unix(1, 0)})
	}
	return logs
}

func request(from, n, size int) *raft.AppendEntriesRequest {
	return &raft.AppendEntriesRequest{
		RPCHeader: raft.RPCHeader{ProtocolVersion: 3, ID: []byte("a"), Addr: []byte("a")}, Term: 3,
		PrevLogEntry: uint64(from - 1), PrevLogTerm: 3, LeaderCommitIndex: uint64(from - 1), Entries: entries(from, n, size),
	}
}

// A follower checks what it appends as Raft does, and keeps it.
type follower struct {
	mu       sync.Mutex // protects the fields below
	log      [][]byte
	messages int
}

func (f *follower) answer(rpc raft.RPC) (any, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.messages++
	req := rpc.Command.(*raft.AppendEntriesRequest)
	resp := &raft.AppendEntriesResponse{Term: req.Term, LastLog: uint64(len(f.log))}
	if req.PrevLogEntry != uint64(len(f.log)) {
		return resp, nil
	}
	for _, e := range req.Entries {
		f.log = append(f.log, e.Data)
	}
	resp.Success, resp.LastLog = true, uint64(len(f.log))
	return resp, nil
}

// A pipeline's appends come in order, their answers too, whole or in pieces.
func TestPipeline(t *testing.T) {
	run(t, func(t *testing.T, r *rig) {
		f := new(follower)
		r.serve(f.answer)
		var observed []uint64
		r.a.Observe(&raftnet.Observer{Answered: func(a raftnet.Answer) { observed = append(observed, a.Request.PrevLogEntry) }, Broken: func(raft.ServerAddress) {}})
		p, err := r.a.AppendEntriesPipeline("b", "b")
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		next := 1
		for _, shape := range []struct{ n, size, pieces int }{{1, 10, 1}, {100, 100, 1}, {0, 0, 1}, {5, 700 << 10, 5}, {1, 3 << 20, 1}, {3, 500 << 10, 2}, {64, 1, 1}} {
			before := f.messages
			if _, err := p.AppendEntries(request(next, shape.n, shape.size), new(raft.AppendEntriesResponse)); err != nil {
				t.Fatal(err)
			}
			ready := <-p.Consumer()
			if err := ready.Error(); err != nil || !ready.Response().Success || ready.Request().PrevLogEntry != uint64(next-1) {
				t.Fatalf("append at %d: %+v, %v", next, ready.Response(), err)
			}
			if n := f.messages - before; n != shape.pieces {
				t.Errorf("%d entries of %d bytes went as %d messages, want %d", shape.n, shape.size, n, shape.pieces)
			}
			next += shape.n
		}
		synctest.Wait()
		if len(f.log) != next-1 || len(observed) != 7 {
			t.Fatalf("%d entries, %d observed", len(f.log), len(observed))
		}
		for i, data := range f.log {
			if len(data) == 0 || data[0] != byte(i+1) {
				t.Fatalf("entry %d was mixed up", i+1)
			}
		}
	})
}

// Two appends are on their way at most, and none waits for ever.
func TestPipelineWaits(t *testing.T) {
	run(t, func(t *testing.T, r *rig) {
		p, _ := r.a.AppendEntriesPipeline("b", "b")
		for i := range 2 {
			if _, err := p.AppendEntries(request(i+1, 1, 1), new(raft.AppendEntriesResponse)); err != nil {
				t.Fatal(err)
			}
		}
		begin := time.Now()
		if _, err := p.AppendEntries(request(3, 1, 1), new(raft.AppendEntriesResponse)); err == nil || time.Since(begin) != 2*time.Second {
			t.Fatalf("a third one: %v after %v", err, time.Since(begin))
		}
		if _, err := p.AppendEntries(request(3, 1, 1), new(raft.AppendEntriesResponse)); !errors.Is(err, raft.ErrPipelineShutdown) {
			t.Fatalf("after that: %v", err)
		}
		other, _ := r.a.AppendEntriesPipeline("b", "b")
		for i := range 2 {
			if _, err := other.AppendEntries(request(i+1, 1, 1), new(raft.AppendEntriesResponse)); err != nil {
				t.Fatal(err)
			}
		}
		time.AfterFunc(time.Second, func() { _ = other.Close() })
		begin = time.Now()
		if _, err := other.AppendEntries(request(3, 1, 1), new(raft.AppendEntriesResponse)); !errors.Is(err, raft.ErrPipelineShutdown) || time.Since(begin) != time.Second {
			t.Fatalf("one that is closed: %v after %v", err, time.Since(begin))
		}
	})
}

// The first answer that is no success is the last one.
func TestPipelineEndsWithARefusal(t *testing.T) {
	for name, answer := range map[string]func(raft.RPC) (any, error){
		"refused": func(raft.RPC) (any, error) { return &raft.AppendEntriesResponse{Term: 3}, nil },
		"error":   func(raft.RPC) (any, error) { return nil, errors.New("broken") },
		"term":    func(raft.RPC) (any, error) { return &raft.AppendEntriesResponse{Term: 4, Success: true}, nil },
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func(t *testing.T, r *rig) {
				r.serve(answer)
				p, _ := r.a.AppendEntriesPipeline("b", "b")
				for i := range 2 {
					if _, err := p.AppendEntries(request(i+1, 1, 1), new(raft.AppendEntriesResponse)); err != nil {
						t.Fatal(err)
					}
				}
				synctest.Wait()
				ready := <-p.Consumer()
				if (ready.Error() != nil) != (name == "error") || ready.Response().Success && name != "term" {
					t.Errorf("got %+v, %v", ready.Response(), ready.Error())
				}
				select {
				case ready := <-p.Consumer():
					t.Errorf("and then %+v", ready.Response())
				default:
				}
				if _, err := p.AppendEntries(request(3, 1, 1), new(raft.AppendEntriesResponse)); !errors.Is(err, raft.ErrPipelineShutdown) {
					t.Errorf("got %v", err)
				}
			})
		})
	}
}

// What was answered to some pieces says nothing of the last one: Raft reads the response
// of an append that failed.
func TestPipelineLosesThePiecesEnd(t *testing.T) {
	for name, last := range map[string]func(r *rig) (any, error){
		"error":  func(*rig) (any, error) { return nil, errors.New("broken") },
		"closed": func(r *rig) (any, error) { go r.b.Close(); <-r.over; return nil, nil },
		"cut": func(r *rig) (any, error) {
			r.network.Cut("a", "b")
			return &raft.AppendEntriesResponse{Success: true}, nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func(t *testing.T, r *rig) {
				f := new(follower)
				r.serve(func(rpc raft.RPC) (any, error) {
					if f.messages == 1 {
						return last(r)
					}
					return f.answer(rpc)
				})
				p, _ := r.a.AppendEntriesPipeline("b", "b")
				if _, err := p.AppendEntries(request(1, 2, 700<<10), new(raft.AppendEntriesResponse)); err != nil {
					t.Fatal(err)
				}
				ready := <-p.Consumer()
				if ready.Error() == nil || ready.Response().Success || len(f.log) != 1 {
					t.Errorf("%+v, %v: the follower has %d entries", ready.Response(), ready.Error(), len(f.log))
				}
				r.network.Heal("a", "b")
			})
		})
	}
}

// A follower is not told that more is committed than what a piece brings.
func TestPiecesCommitWhatTheyBring(t *testing.T) {
	run(t, func(t *testing.T, r *rig) {
		var commits []uint64
		r.serve(func(rpc raft.RPC) (any, error) {
			commits = append(commits, rpc.Command.(*raft.AppendEntriesRequest).LeaderCommitIndex)
			return &raft.AppendEntriesResponse{Success: true}, nil
		})
		req := request(7, 3, 700<<10)
		req.LeaderCommitIndex = 8
		if err := r.a.AppendEntries("b", "b", req, new(raft.AppendEntriesResponse)); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(commits, []uint64{7, 8, 8}) {
			t.Errorf("pieces say that %d are committed", commits)
		}
	})
}

// Every kind of message comes as it was, with its answer.
func TestMessages(t *testing.T) {
	run(t, func(t *testing.T, r *rig) {
		var got []any
		r.serve(func(rpc raft.RPC) (any, error) {
			got = append(got, rpc.Command)
			switch rpc.Command.(type) {
			case *raft.AppendEntriesRequest:
				return &raft.AppendEntriesResponse{Term: 7, LastLog: 8, Success: true}, nil
			case *raft.RequestVoteRequest:
				return &raft.RequestVoteResponse{Term: 7, Granted: true}, nil
			case *raft.RequestPreVoteRequest:
				return &raft.RequestPreVoteResponse{Term: 7, Granted: true}, nil
			case *raft.TimeoutNowRequest:
				return &raft.TimeoutNowResponse{}, nil
			}
			return nil, errors.New("unknown")
		})
		var beats int
		r.b.SetHeartbeatHandler(func(rpc raft.RPC) {
			beats++
			rpc.Respond(&raft.AppendEntriesResponse{Term: 9}, nil)
		})
		header := raft.RPCHeader{ProtocolVersion: 3, ID: []byte("a"), Addr: []byte("a")}
		var appended raft.AppendEntriesResponse
		if err := r.a.AppendEntries("b", "b", request(1, 2, 3), &appended); err != nil || !appended.Success || appended.LastLog != 8 {
			t.Errorf("append: %+v, %v", appended, err)
		}
		if err := r.a.AppendEntries("b", "b", &raft.AppendEntriesRequest{RPCHeader: header, Term: 3}, &appended); err != nil || appended.Term != 9 || beats != 1 {
			t.Errorf("heartbeat: %+v, %v, %d beats", appended, err, beats)
		}
		var vote raft.RequestVoteResponse
		if err := r.a.RequestVote("b", "b", &raft.RequestVoteRequest{RPCHeader: header, Term: 3}, &vote); err != nil || !vote.Granted || vote.Term != 7 {
			t.Errorf("vote: %+v, %v", vote, err)
		}
		var pre raft.RequestPreVoteResponse
		if err := r.a.RequestPreVote("b", "b", &raft.RequestPreVoteRequest{RPCHeader: header, Term: 3}, &pre); err != nil || !pre.Granted || pre.Term != 7 {
			t.Errorf("pre-vote: %+v, %v", pre, err)
		}
		if err := r.a.TimeoutNow("b", "b", &raft.TimeoutNowRequest{RPCHeader: header}, new(raft.TimeoutNowResponse)); err != nil {
			t.Errorf("timeout now: %v", err)
		}
		done := make(chan error, 1)
		if err := r.a.StartAppend("b", request(1, 0, 0), func(resp *raft.AppendEntriesResponse, err error) {
			if resp.Term != 7 {
				err = fmt.Errorf("%+v", resp)
			}
			done <- err
		}); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Errorf("started append: %v", err)
		}
		if len(got) != 5 {
			t.Errorf("%d came to raft", len(got))
		}
	})
}

// A replica that is not there refuses, and Raft does not take that for a granted vote.
func TestAbsent(t *testing.T) {
	run(t, func(t *testing.T, r *rig) {
		check := func(what string) {
			t.Helper()
			begin := time.Now()
			err := r.a.RequestPreVote("b", "b", &raft.RequestPreVoteRequest{Term: 3}, new(raft.RequestPreVoteResponse))
			if err == nil || strings.Contains(err.Error(), "unexpected command") || time.Since(begin) > 0 {
				t.Errorf("%s: %v after %v", what, err, time.Since(begin))
			}
			if err := r.a.AppendEntries("b", "b", request(1, 1, 1), new(raft.AppendEntriesResponse)); err == nil {
				t.Errorf("%s: append", what)
			}
		}
		if err := r.b.Close(); err != nil {
			t.Fatal(err)
		}
		check("closed")
		r.stopB()
		check("no node")
	})
}

// Who waits for a replica that ends is told, and so is who waits for one that is cut off.
func TestEnds(t *testing.T) {
	for name, end := range map[string]func(*rig){
		"closed": func(r *rig) { _ = r.b.Close() },
		"gone":   func(r *rig) { r.stopB() },
		"cut":    func(r *rig) { r.network.Cut("a", "b") },
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func(t *testing.T, r *rig) {
				broken := 0
				var last error
				r.a.Observe(&raftnet.Observer{Answered: func(a raftnet.Answer) { last = a.Err }, Broken: func(raft.ServerAddress) { broken++ }})
				p, _ := r.a.AppendEntriesPipeline("b", "b")
				if _, err := p.AppendEntries(request(1, 1, 1), new(raft.AppendEntriesResponse)); err != nil {
					t.Fatal(err)
				}
				<-r.b.Consumer() // Raft has it, and ends without an answer
				if _, err := p.AppendEntries(request(2, 1, 1), new(raft.AppendEntriesResponse)); err != nil {
					t.Fatal(err)
				}
				begin := time.Now()
				end(r)
				ready := <-p.Consumer()
				synctest.Wait()
				if took := time.Since(begin); ready.Error() == nil || last == nil || took > 2*time.Second || (broken == 1) != (name != "closed") {
					t.Errorf("got %v after %v, %d broken", ready.Error(), took, broken)
				}
				r.network.Heal("a", "b")
			})
		})
	}
}

// More appends than have room are refused, and counted; those before go on.
func TestLaneIsBounded(t *testing.T) {
	run(t, func(t *testing.T, r *rig) {
		refused, ok := 0, 0
		for i := range 40 {
			err := r.a.StartAppend("b", request(i+1, 0, 0), func(_ *raft.AppendEntriesResponse, err error) {
				if err != nil {
					refused++
				} else {
					ok++
				}
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait() // one is with Raft, 32 wait
		if refused != 7 || r.b.Refused() != 7 {
			t.Fatalf("%d refused, %d counted", refused, r.b.Refused())
		}
		r.serve(func(raft.RPC) (any, error) { return &raft.AppendEntriesResponse{Success: true}, nil })
		synctest.Wait()
		if ok != 33 {
			t.Fatalf("%d went on", ok)
		}
	})
}

// A slowReader gives n bytes, step at a time, each after a while.
type slowReader struct {
	n, step int
	every   time.Duration
}

func (s *slowReader) Read(b []byte) (int, error) {
	if s.n == 0 {
		return 0, io.EOF
	}
	time.Sleep(s.every)
	n := min(s.step, s.n, len(b))
	s.n -= n
	return n, nil
}

// A snapshot comes whole, however long it takes, while other messages pass.
func TestSnapshot(t *testing.T) {
	const size = 100
	run(t, func(t *testing.T, r *rig) {
		var data []byte
		var req *raft.InstallSnapshotRequest
		r.serve(func(rpc raft.RPC) (any, error) {
			req = rpc.Command.(*raft.InstallSnapshotRequest)
			data, _ = io.ReadAll(rpc.Reader)
			time.Sleep(5 * time.Minute) // it is restored
			return &raft.InstallSnapshotResponse{Term: 3, Success: true}, nil
		})
		r.b.SetHeartbeatHandler(func(rpc raft.RPC) { rpc.Respond(&raft.AppendEntriesResponse{Success: true}, nil) })
		done := make(chan error, 1)
		var resp raft.InstallSnapshotResponse
		go func() {
			done <- r.a.InstallSnapshot("b", "b", &raft.InstallSnapshotRequest{SnapshotVersion: 1, Term: 3, LastLogIndex: 9, Size: size, Configuration: []byte("c")}, &resp, &slowReader{size, 1, 20 * time.Second})
		}()
		time.Sleep(time.Minute)
		begin := time.Now()
		if err := r.a.AppendEntries("b", "b", &raft.AppendEntriesRequest{Term: 3}, new(raft.AppendEntriesResponse)); err != nil || time.Since(begin) > 0 {
			t.Errorf("a heartbeat meanwhile: %v after %v", err, time.Since(begin))
		}
		if err := <-done; err != nil || !resp.Success || len(data) != size || req.LastLogIndex != 9 || string(req.Configuration) != "c" {
			t.Fatalf("got %+v, %v: %+v with %d bytes", resp, err, req, len(data))
		}
	})
}

// A snapshot that does not go forward ends, at both ends.
func TestSnapshotStandsStill(t *testing.T) {
	for name, at := range map[string]func(r *rig){
		"cut":    func(r *rig) { r.network.Cut("a", "b") },
		"closed": func(r *rig) { _ = r.b.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func(t *testing.T, r *rig) {
				read := make(chan error, 1)
				r.serve(func(rpc raft.RPC) (any, error) {
					_, err := io.ReadAll(rpc.Reader)
					read <- err
					return nil, err
				})
				done := make(chan error, 1)
				go func() {
					done <- r.a.InstallSnapshot("b", "b", &raft.InstallSnapshotRequest{SnapshotVersion: 1, Term: 3, Size: 10 << 20}, new(raft.InstallSnapshotResponse), &slowReader{10 << 20, 32 << 10, time.Second})
				}()
				time.Sleep(10 * time.Second)
				begin := time.Now()
				at(r)
				if err := <-read; err == nil {
					t.Error("the replica read on")
				}
				// What is written to a network that is cut vanishes: only the answer is missed.
				if err := <-done; err == nil || time.Since(begin) > 6*time.Minute {
					t.Errorf("the sender: %v after %v", err, time.Since(begin))
				}
				r.network.Heal("a", "b")
			})
		})
	}
}

// A snapshot that ends early is an error of the sender, and nothing is installed.
func TestShortSnapshot(t *testing.T) {
	run(t, func(t *testing.T, r *rig) {
		read := make(chan int, 1)
		r.serve(func(rpc raft.RPC) (any, error) {
			b, err := io.ReadAll(rpc.Reader)
			read <- len(b)
			return nil, err
		})
		err := r.a.InstallSnapshot("b", "b", &raft.InstallSnapshotRequest{SnapshotVersion: 1, Size: 10}, new(raft.InstallSnapshotResponse), strings.NewReader("short"))
		if !errors.Is(err, io.EOF) || <-read != 5 {
			t.Fatalf("got %v", err)
		}
	})
}
