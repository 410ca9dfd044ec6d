package api

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/meshkv/meshkv/client"
)

// A lineStream writes JSON values as lines, or as server-sent events.
type lineStream struct {
	w       http.ResponseWriter
	rc      *http.ResponseController
	buf     *bufio.Writer
	timeout time.Duration
	sse     bool
	begun   bool
}

func newLineStream(w http.ResponseWriter, timeout time.Duration, sse bool) *lineStream {
	l := &lineStream{w: w, rc: http.NewResponseController(w), timeout: timeout, sse: sse}
	l.buf = bufio.NewWriterSize(deadlineWriter{l}, 32<<10)
	return l
}

// A deadlineWriter gives each write its time, so that a client that does not
// read is cut off, and one that reads slowly is not.
type deadlineWriter struct{ l *lineStream }

func (d deadlineWriter) Write(b []byte) (int, error) {
	// Not supported by a recorder in tests.
	_ = d.l.rc.SetWriteDeadline(time.Now().Add(d.l.timeout))
	return d.l.w.Write(b)
}

// begin sends the head: from now on errors are lines.
func (l *lineStream) begin() {
	if l.begun {
		return
	}
	l.begun = true
	h := l.w.Header()
	h.Set("Cache-Control", "no-store")
	if l.sse {
		h.Set("Content-Type", "text/event-stream")
	} else {
		h.Set("Content-Type", "application/x-ndjson")
	}
	l.w.WriteHeader(http.StatusOK)
}

// line writes v; event and id are for server-sent events.
func (l *lineStream) line(event, id string, v any) error {
	if l.sse {
		if id != "" {
			fmt.Fprintf(l.buf, "id: %s\n", id)
		}
		fmt.Fprintf(l.buf, "event: %s\ndata: ", event)
	}
	if err := jsonLine(l.buf, v); err != nil {
		return err
	}
	if l.sse {
		_, err := io.WriteString(l.buf, "\n")
		return err
	}
	return nil
}

func (l *lineStream) flush() error {
	if err := l.buf.Flush(); err != nil {
		return err
	}
	_ = l.rc.SetWriteDeadline(time.Now().Add(l.timeout))
	return l.rc.Flush()
}

// fail ends the stream with err, as a line if it has begun.
func (l *lineStream) fail(err error) error {
	if !l.begun {
		return err
	}
	if l.line("error", "", errorBody(failures[failureOf(err)].code, err.Error())) == nil {
		_ = l.flush() // the client may be gone
	}
	return errStreamed{err}
}

// watchKeys streams events until the client hangs up, the server drains, or
// the watch fails, which is a last line.
func (s *Server) watchKeys(ctx context.Context, w http.ResponseWriter, r *http.Request, c *call, q *query) error {
	prefix := q.string("prefix")
	o := client.WatchOptions{From: client.Cursor(q.string("from")), UpdatesOnly: q.bool("updates-only"), Exact: q.bool("exact"), NotMine: q.bool("not-mine")}
	var err error
	if o.Only, err = client.ParseEventSet(q.string("only")); err != nil {
		return err
	}
	if err := q.finish(); err != nil {
		return err
	}
	sse := accepts(r, "text/event-stream")
	if id := r.Header.Get("Last-Event-ID"); sse && id != "" {
		o.From = client.Cursor(id) // an EventSource that connects again
	}
	if err := s.admitWatch(overHTTP); err != nil {
		return err
	}
	defer s.releaseWatch(overHTTP)
	ks, err := s.backend.Keyspace(ctx, c.keyspace)
	if err != nil {
		return err
	}
	watch, err := ks.Watch(ctx, prefix, &o)
	if err != nil {
		return err
	}
	defer watch.Close()
	out := newLineStream(w, s.opts.WriteTimeout, sse)
	out.begin()
	if err := out.flush(); err != nil {
		return errStreamed{err}
	}
	return s.pump(ctx, out, watch)
}

type nextEvent struct {
	event client.Event
	err   error
}

// pumpAhead is how many events are taken from the backend before the client
// takes them: those that come together are written together.
const pumpAhead = 64

// pump forwards events. While a slow client takes a few, the backend coalesces
// the rest.
func (s *Server) pump(ctx context.Context, out *lineStream, watch client.Watch) error {
	ctx, cancel := context.WithCancel(ctx)
	next := make(chan nextEvent, pumpAhead)
	done := make(chan struct{})
	defer func() { cancel(); <-done }()
	go func() {
		defer close(done)
		for {
			ev, err := watch.Next(ctx)
			select {
			case next <- nextEvent{ev, err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	silence := time.NewTimer(s.opts.Heartbeat)
	defer silence.Stop()
	var cursor client.Cursor
	for {
		var ev client.Event
		select {
		case <-s.draining:
			return out.fail(client.ErrDraining)
		case <-ctx.Done():
			return out.fail(ctx.Err())
		case <-silence.C:
			ev = client.Event{Type: client.EventHeartbeat, Cursor: cursor}
		case n := <-next:
			if n.err != nil {
				return out.fail(n.err)
			}
			ev = n.event
		}
		silence.Reset(s.opts.Heartbeat)
		switch ev.Type {
		case client.EventHeartbeat:
			ev.Cursor = cursor
		case client.EventResync:
			cursor = ""
		default:
			cursor = ev.Cursor
		}
		if ev.Type == client.EventPut {
			ev.Entry.Value = present(ev.Entry.Value)
		}
		if err := out.line(string(ev.Type), string(ev.Cursor), ev); err != nil {
			return errStreamed{err}
		}
		s.metrics.events[overHTTP].Inc()
		if len(next) > 0 {
			continue
		}
		if err := out.flush(); err != nil {
			return errStreamed{err}
		}
	}
}
