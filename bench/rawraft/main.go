// Command rawraft is a member of the least that one would build on hashicorp/raft and
// raft-boltdb: a map behind a binary protocol, served by the leader alone.
package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"github.com/meshkv/meshkv/bench/peer/voter"
	"github.com/meshkv/meshkv/bench/rawraft/wire"
)

// maxInFlight bounds the requests of one connection that are under way; it is read
// no further then.
const maxInFlight = 1024

func main() { voter.Main(run) }

func run(ctx context.Context, s voter.Spec) (err error) {
	cfg := raft.DefaultConfig()
	cfg.LocalID = raft.ServerID(s.Name)
	cfg.BatchApplyCh, cfg.MaxAppendEntries = true, 512 // as consensus/group has them
	cfg.Logger = hclog.NewNullLogger()
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return err
	}
	log, err := raftboltdb.NewBoltStore(filepath.Join(s.Dir, "raft.db"))
	if err != nil {
		return fmt.Errorf("open the log: %w", err)
	}
	defer log.Close()
	snapshots, err := raft.NewFileSnapshotStore(s.Dir, 2, io.Discard)
	if err != nil {
		return err
	}
	transport, err := raft.NewTCPTransport(s.Peer, nil, 3, 10*time.Second, io.Discard)
	if err != nil {
		return err
	}
	defer transport.Close()
	begun, err := raft.HasExistingState(log, log, snapshots)
	if err != nil {
		return err
	}
	if !begun {
		var voters raft.Configuration
		for _, p := range s.Cluster {
			voters.Servers = append(voters.Servers, raft.Server{ID: raft.ServerID(p.Name), Address: raft.ServerAddress(p.Addr)})
		}
		if err := raft.BootstrapCluster(cfg, log, log, snapshots, transport, voters); err != nil {
			return fmt.Errorf("bootstrap: %w", err)
		}
	}
	state := &store{values: make(map[string][]byte)}
	r, err := raft.NewRaft(cfg, state, log, log, snapshots, transport)
	if err != nil {
		return fmt.Errorf("start raft: %w", err)
	}
	defer func() { r.Shutdown().Error() }()
	ln, err := net.Listen("tcp", s.Client)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	srv := &server{raft: r, state: state}
	for {
		conn, err := ln.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		go srv.serve(conn) // until its client or the process ends
	}
}

type server struct {
	raft  *raft.Raft
	state *store
}

// serve answers one connection until it breaks.
func (s *server) serve(conn net.Conn) {
	answers := make(chan wire.Frame, maxInFlight)
	slots := make(chan struct{}, maxInFlight)
	var handlers, writer sync.WaitGroup
	writer.Go(func() { write(conn, answers) })
	for r := bufio.NewReaderSize(conn, 64<<10); ; {
		f, err := wire.Read(r)
		if err != nil {
			break
		}
		slots <- struct{}{}
		handlers.Go(func() {
			answers <- s.handle(f)
			<-slots
		})
	}
	handlers.Wait()
	close(answers)
	writer.Wait()
	conn.Close()
}

// write flushes when nothing more waits. It goes on taking answers after an error.
func write(conn net.Conn, answers <-chan wire.Frame) {
	w := bufio.NewWriterSize(conn, 64<<10)
	for f := range answers {
		err := wire.Write(w, f)
		if err == nil && len(answers) == 0 {
			err = w.Flush()
		}
		if err != nil {
			conn.Close() // ends the reader
		}
	}
}

func (s *server) handle(f wire.Frame) wire.Frame {
	answer := wire.Frame{ID: f.ID}
	switch wire.Op(f.Code) {
	case wire.Put:
		switch s.raft.Apply(command(f.Key, f.Value), 10*time.Second).Error() {
		case nil:
			answer.Code = uint8(wire.OK)
		case raft.ErrNotLeader:
			return s.elsewhere(answer)
		default:
			answer.Code = uint8(wire.Unknown)
		}
	case wire.Get:
		if s.raft.VerifyLeader().Error() != nil {
			return s.elsewhere(answer)
		}
		v, ok := s.state.get(f.Key)
		answer.Code, answer.Value = uint8(wire.OK), v
		if !ok {
			answer.Code = uint8(wire.NotFound)
		}
	default: // wire.Leader
		answer = s.elsewhere(answer)
		answer.Code = uint8(wire.OK)
	}
	return answer
}

// elsewhere answers with the name of the leader.
func (s *server) elsewhere(answer wire.Frame) wire.Frame {
	_, id := s.raft.LeaderWithID()
	answer.Code, answer.Value = uint8(wire.NotLeader), []byte(id)
	return answer
}
