package peer

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A Node is one node of the system under measurement.
type Node interface {
	// Put writes a key that did not exist before.
	Put(ctx context.Context, key string, value []byte) error
	// Stats are the system's own counters, if it has any.
	Stats() map[string]int64
	Stop() error
}

// StartFunc begins a node. Every key that becomes visible at it, its own puts
// included, goes to rec.
type StartFunc func(ctx context.Context, spec NodeSpec, rec *Recorder) (Node, error)

// server is the nodes of this process.
type server struct {
	start StartFunc
	nodes []Node
	specs []NodeSpec
	recs  []*Recorder
}

// Serve answers the harness on in and out until OpStop, the end of in, or ctx.
func Serve(ctx context.Context, in io.Reader, out io.Writer, start StartFunc) (err error) {
	s := &server{start: start}
	defer func() {
		for _, n := range s.nodes {
			err = errors.Join(err, n.Stop())
		}
	}()
	requests := bufio.NewScanner(in)
	requests.Buffer(nil, 1<<20)
	enc := json.NewEncoder(out)
	for requests.Scan() {
		var req Request
		if err := json.Unmarshal(requests.Bytes(), &req); err != nil {
			return fmt.Errorf("read request: %w", err)
		}
		reply, err := s.handle(ctx, &req)
		if err != nil {
			reply = &Reply{Error: err.Error()}
		}
		if err := enc.Encode(reply); err != nil {
			return fmt.Errorf("write reply: %w", err)
		}
		if req.Op == OpStop {
			return nil
		}
	}
	return requests.Err()
}

func (s *server) handle(ctx context.Context, req *Request) (*Reply, error) {
	switch req.Op {
	case OpStart:
		for _, spec := range req.Nodes {
			rec := NewRecorder(spec.Keys)
			n, err := s.start(ctx, spec, rec)
			if err != nil {
				return nil, fmt.Errorf("start %s: %w", spec.Name, err)
			}
			s.nodes, s.specs, s.recs = append(s.nodes, n), append(s.specs, spec), append(s.recs, rec)
		}
		return &Reply{}, nil
	case OpPut:
		return s.put(ctx, req)
	case OpCount, OpArrivals:
		reply := &Reply{}
		for i, rec := range s.recs {
			seen := Seen{Node: s.specs[i].Name}
			seen.Count, seen.Last = rec.Count(req.Prefix)
			if req.Op == OpArrivals {
				seen.Arrivals = rec.Arrivals(req.Prefix)
			}
			reply.Seen = append(reply.Seen, seen)
		}
		return reply, nil
	case OpForget:
		for _, rec := range s.recs {
			rec.Forget(req.Prefix)
		}
		return &Reply{}, nil
	case OpUsage:
		if req.GC {
			runtime.GC()
			runtime.GC()
		}
		u, err := usage()
		return &Reply{Usage: u}, err
	case OpStats:
		reply := &Reply{Stats: make(map[string]map[string]int64)}
		for i, n := range s.nodes {
			reply.Stats[s.specs[i].Name] = n.Stats()
		}
		return reply, nil
	case OpStop:
		return &Reply{}, nil
	default:
		return nil, fmt.Errorf("no operation %q", req.Op)
	}
}

// putTick is how often at most the writer of keys wakes up: those that are due in it go
// one after the other. With a wake-up for each of 5,000 puts/s the measured would be
// the writers of 16 processes.
const putTick = 10 * time.Millisecond

// put writes the keys at their times, to putTick. A put that is late is not skipped:
// those after it are late, too.
func (s *server) put(ctx context.Context, req *Request) (*Reply, error) {
	if req.Node < 0 || req.Node >= len(s.nodes) {
		return nil, fmt.Errorf("no node %d", req.Node)
	}
	reply := &Reply{Puts: make(map[string]int64, req.Count)}
	node := s.nodes[req.Node]
	value := make([]byte, req.Size)
	begin := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	<-timer.C
	for i := range req.Count {
		if wait := time.Until(begin.Add(time.Duration(i) * time.Duration(req.Every))); req.Every > 0 && wait > 0 {
			timer.Reset(max(wait, putTick))
			select {
			case <-timer.C:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		key := req.Prefix + strconv.Itoa(req.From+i)
		fill(value, req.From+i)
		reply.Puts[key] = time.Now().UnixNano()
		if err := node.Put(ctx, key, value); err != nil {
			return nil, fmt.Errorf("put %s: %w", key, err)
		}
	}
	reply.Took = int64(time.Since(begin))
	return reply, nil
}

// fill makes a value that does not compress to nothing.
func fill(value []byte, seed int) {
	x := uint64(seed)*0x9e3779b97f4a7c15 + 1
	for i := range value {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		value[i] = byte(x)
	}
}

func usage() (*Usage, error) {
	var ru syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &ru); err != nil {
		return nil, fmt.Errorf("resource usage: %w", err)
	}
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	u := &Usage{CPUNs: ru.Utime.Nano() + ru.Stime.Nano(), Heap: int64(mem.HeapAlloc)}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return nil, fmt.Errorf("resident memory: %w", err)
	}
	if u.RSSBytes, err = field(string(status), "VmRSS:", 0); err != nil {
		return nil, err
	}
	u.RSSBytes <<= 10
	dev, err := os.ReadFile("/proc/self/net/dev")
	if err != nil {
		return nil, fmt.Errorf("network counters: %w", err)
	}
	u.NetBytes, err = field(string(dev), "lo:", 0)
	return u, err
}

// field is number i of the line of text that begins with name.
func field(text, name string, i int) (int64, error) {
	for line := range strings.Lines(text) {
		rest, ok := strings.CutPrefix(strings.TrimSpace(line), name)
		if !ok {
			continue
		}
		if words := strings.Fields(rest); i < len(words) {
			return strconv.ParseInt(words[i], 10, 64)
		}
	}
	return 0, fmt.Errorf("no line %q", name)
}
