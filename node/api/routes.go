package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/meshkv/meshkv/client"
)

func jsonLine(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

type writtenJSON struct {
	Version string `json:"version"`
	Token   string `json:"token"`
}

func (s *Server) putKey(ctx context.Context, w http.ResponseWriter, r *http.Request, c *call, q *query) error {
	o := client.PutOptions{
		TTL:       q.duration("ttl"),
		Ephemeral: q.bool("ephemeral"),
		Durable:   q.bool("durable"),
		IfAbsent:  q.bool("if-absent"),
		Acks:      q.acks(),
	}
	o.IfVersion = q.version("if-version")
	o.Session = q.session()
	request := q.requestID()
	if err := q.finish(); err != nil {
		return err
	}
	bytes := r.ContentLength
	if bytes < 0 || bytes > maxBody {
		bytes = maxBody // what it may become
	}
	defer s.inflightBytes.Add(-bytes)
	if s.inflightBytes.Add(bytes) > s.opts.MaxInflightBytes {
		s.metrics.rejected(rejectInflight)
		return errTooManyInflight
	}
	value, err := readBody(w, r)
	if err != nil {
		return err
	}
	var version client.Version
	if request != "" {
		version, err = s.putOnce(ctx, c, request, value, &o)
	} else {
		var ks client.Keyspace
		if ks, err = s.backend.Keyspace(ctx, c.keyspace); err != nil {
			return err
		}
		version, err = ks.Put(ctx, c.key, value, &o)
	}
	if err != nil {
		return writeFailure(err)
	}
	return writeJSON(w, writtenJSON{version.String(), string(version.Token())})
}

// readBody reads the whole value. Nothing has been applied when it fails.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if r.ContentLength > maxBody {
		return nil, fmt.Errorf("%w: a value of %d bytes, at most %d", client.ErrTooLarge, r.ContentLength, maxBody)
	}
	value, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return nil, fmt.Errorf("%w: a value of more than %d bytes", client.ErrTooLarge, maxBody)
	case err != nil:
		return nil, fmt.Errorf("%w: the value did not arrive whole", client.ErrTimeout)
	}
	return value, nil
}

func (s *Server) getKey(ctx context.Context, w http.ResponseWriter, r *http.Request, c *call, q *query) error {
	o := client.GetOptions{After: client.Token(q.string("after")), Siblings: q.bool("siblings")}
	o.Local, o.Linearizable = q.consistency()
	o.Revision, _ = q.number("revision")
	if err := q.finish(); err != nil {
		return err
	}
	ks, err := s.contents(c.keyspace)
	if err != nil {
		return err
	}
	e, err := ks.Get(ctx, c.key, &o)
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("Meshkv-Version", e.Version.String())
	h.Set("Meshkv-Origin", e.Origin)
	h.Set("Meshkv-Token", string(e.Version.Token()))
	e.Value = present(e.Value)
	if o.Siblings || accepts(r, "application/json") {
		return writeJSON(w, e)
	}
	h.Set("X-Content-Type-Options", "nosniff")
	return writeBody(w, "application/octet-stream", e.Value)
}

func (s *Server) deleteKey(ctx context.Context, w http.ResponseWriter, _ *http.Request, c *call, q *query) error {
	o := client.DeleteOptions{Durable: q.bool("durable"), Acks: q.acks(), IfVersion: q.version("if-version")}
	request := q.requestID()
	if err := q.finish(); err != nil {
		return err
	}
	var d client.Deletion
	var err error
	if request != "" {
		d, err = s.deleteOnce(ctx, c, request, &o)
	} else {
		var ks contents
		if ks, err = s.contents(c.keyspace); err != nil {
			return err
		}
		d, err = ks.Delete(ctx, c.key, &o)
	}
	if err != nil {
		return writeFailure(err)
	}
	return writeJSON(w, struct {
		Deleted bool `json:"deleted"`
		writtenJSON
	}{d.Deleted, writtenJSON{d.Version.String(), string(d.Version.Token())}})
}

// listKeys streams a list page by page. An error after the first line is a last
// line of its own.
func (s *Server) listKeys(ctx context.Context, w http.ResponseWriter, _ *http.Request, c *call, q *query) error {
	prefix := q.string("prefix")
	o := client.ListOptions{Limit: q.count("limit"), After: q.string("after"), KeysOnly: !q.bool("values")}
	var linearizable bool
	if o.Local, linearizable = q.consistency(); linearizable && !s.isStrong(c.keyspace) {
		q.needsStrong("consistency=linearizable")
	}
	o.Revision, _ = q.number("revision")
	if err := q.finish(); err != nil {
		return err
	}
	ks, err := s.contents(c.keyspace)
	if err != nil {
		return err
	}
	out := newLineStream(w, s.opts.WriteTimeout, false)
	for {
		entries, more, err := takePage(ctx, ks, prefix, o)
		if err != nil {
			return out.fail(err)
		}
		out.begin()
		for i := range entries {
			if o.KeysOnly || entries[i].Type != client.TypeRegister {
				entries[i].Value = nil
			} else {
				entries[i].Value = present(entries[i].Value)
			}
			if err := out.line("", "", entries[i]); err != nil {
				return errStreamed{err}
			}
		}
		if err := out.flush(); err != nil {
			return errStreamed{err}
		}
		if !more {
			return nil
		}
		o.After = entries[len(entries)-1].Key
		if o.Limit > 0 {
			o.Limit -= len(entries)
		}
	}
}

func (s *Server) getDigest(ctx context.Context, w http.ResponseWriter, _ *http.Request, c *call, q *query) error {
	return onKeyspace(ctx, s, w, c, q, contents.Digest)
}

// getInfo describes a keyspace, and of a strong one its group, too.
func (s *Server) getInfo(ctx context.Context, w http.ResponseWriter, _ *http.Request, c *call, q *query) error {
	if s.isStrong(c.keyspace) {
		return onKeyspace(ctx, s, w, c, q, func(ks contents, ctx context.Context) (any, error) {
			info, err := ks.Info(ctx)
			if err != nil {
				return nil, err
			}
			group, err := s.strong.StrongInfo(ctx, c.keyspace)
			return strongKeyspaceJSON(info, group), err
		})
	}
	return onKeyspace(ctx, s, w, c, q, contents.Info)
}

func onKeyspace[T any](ctx context.Context, s *Server, w http.ResponseWriter, c *call, q *query, ask func(contents, context.Context) (T, error)) error {
	if err := q.finish(); err != nil {
		return err
	}
	ks, err := s.contents(c.keyspace)
	if err != nil {
		return err
	}
	v, err := ask(ks, ctx)
	if err != nil {
		return err
	}
	return writeJSON(w, v)
}

func (s *Server) getKeyspaces(ctx context.Context, w http.ResponseWriter, _ *http.Request, _ *call, q *query) error {
	if err := q.finish(); err != nil {
		return err
	}
	list, err := s.backend.Keyspaces(ctx)
	if err != nil {
		return err
	}
	if list == nil {
		list = []client.KeyspaceInfo{}
	}
	return writeJSON(w, map[string]any{"keyspaces": list})
}

func (s *Server) getMembers(ctx context.Context, w http.ResponseWriter, _ *http.Request, _ *call, q *query) error {
	if err := q.finish(); err != nil {
		return err
	}
	list, err := s.backend.Members(ctx)
	if err != nil {
		return err
	}
	if list == nil {
		list = []client.Member{}
	}
	return writeJSON(w, map[string]any{"members": list})
}

func (s *Server) getStatus(ctx context.Context, w http.ResponseWriter, _ *http.Request, _ *call, q *query) error {
	if err := q.finish(); err != nil {
		return err
	}
	status, err := s.backend.Status(ctx)
	if err != nil {
		return err
	}
	return writeJSON(w, status)
}

func (s *Server) postLeave(ctx context.Context, w http.ResponseWriter, _ *http.Request, _ *call, q *query) error {
	if err := q.finish(); err != nil {
		return err
	}
	if err := s.leave(ctx); err != nil {
		return writeFailure(err)
	}
	return writeJSON(w, map[string]bool{"left": true})
}

func (s *Server) postForceLeave(ctx context.Context, w http.ResponseWriter, _ *http.Request, c *call, q *query) error {
	if err := q.finish(); err != nil {
		return err
	}
	if err := s.backend.ForceLeave(ctx, c.key); err != nil {
		return writeFailure(err)
	}
	return writeJSON(w, map[string]string{"left": c.key})
}

// accepts reports whether the client asks for a media type by name.
func accepts(r *http.Request, mediaType string) bool {
	for _, line := range r.Header.Values("Accept") {
		for item := range strings.SplitSeq(line, ",") {
			name, _, _ := strings.Cut(item, ";")
			if strings.EqualFold(strings.TrimSpace(name), mediaType) {
				return true
			}
		}
	}
	return false
}
