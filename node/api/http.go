package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/client/wire"
)

// maxBody is the largest value that any keyspace takes; the backend may set a
// lower limit.
const maxBody = 1 << 20

// serveHTTP routes by the escaped path: a key may hold slashes, dots and any
// other bytes, so the path must not be cleaned.
func (s *Server) serveHTTP(w http.ResponseWriter, r *http.Request) {
	path := r.URL.EscapedPath()
	switch path {
	case wire.Path:
		s.serveNative(w, r)
		return
	case "/livez":
		s.serveLive(w, r)
		return
	case "/readyz":
		s.serveReady(w, r)
		return
	case "/metrics":
		promhttp.HandlerFor(s.opts.Registry, promhttp.HandlerOpts{}).ServeHTTP(w, r)
		return
	}
	c, err := s.route(r, path)
	if err == nil && c.op != opWatch && c.op != opLeave {
		// Those two end by themselves when the server drains.
		if !s.begin() {
			err = client.ErrDraining
		} else {
			defer s.end()
		}
	} else if err == nil && s.isDraining() {
		err = client.ErrDraining
	}
	if errors.Is(err, client.ErrDraining) {
		s.metrics.rejected(rejectDraining)
	}
	start := time.Now()
	if err == nil {
		err = s.serveCall(w, r, c)
	} else {
		s.fail(w, err)
	}
	s.metrics.done(overHTTP, c.op, err, time.Since(start))
}

// A call is one request that has found its route.
type call struct {
	op       operation
	keyspace string
	key      string
	// serve answers. An error before anything was written is answered by the
	// caller; a stream that has begun reports it in its own way and returns it
	// as errStreamed.
	serve func(ctx context.Context, w http.ResponseWriter, r *http.Request, c *call, q *query) error
}

// errStreamed wraps an error that the client was already told.
type errStreamed struct{ error }

func (e errStreamed) Unwrap() error { return e.error }

// serveCall answers one call within its time.
func (s *Server) serveCall(w http.ResponseWriter, r *http.Request, c *call) error {
	q := parseQuery(r)
	timeout := q.duration("timeout")
	if timeout == 0 && c.op != opWatch {
		timeout = s.opts.Timeout
	}
	ctx := r.Context()
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	rc := http.NewResponseController(w)
	if c.op != opWatch {
		// Not supported by a recorder in tests, and nothing else depends on it.
		_ = rc.SetReadDeadline(time.Now().Add(timeout))
		_ = rc.SetWriteDeadline(time.Now().Add(timeout + s.opts.WriteTimeout))
	}
	err := c.serve(ctx, w, r, c, q)
	var streamed errStreamed
	if err != nil && !errors.As(err, &streamed) {
		s.fail(w, err)
	}
	return err
}

// route finds the call of a path and method.
func (s *Server) route(r *http.Request, path string) (*call, error) {
	other := &call{op: opOther}
	rest, ok := strings.CutPrefix(path, "/v1/")
	if !ok {
		return other, fmt.Errorf("%w: no such path", client.ErrNotFound)
	}
	name, rest, more := strings.Cut(rest, "/")
	switch name {
	case "kv":
		ks, key, err := splitAddress(name, rest)
		if err != nil {
			return other, err
		}
		return byMethod(r, map[string]*call{
			http.MethodPut:    {op: opPut, keyspace: ks, key: key, serve: s.putKey},
			http.MethodGet:    {op: opGet, keyspace: ks, key: key, serve: s.getKey},
			http.MethodHead:   {op: opGet, keyspace: ks, key: key, serve: s.getKey},
			http.MethodDelete: {op: opDelete, keyspace: ks, key: key, serve: s.deleteKey},
		})
	case "keys", "watch", "digest":
		ks, err := unescapeSegment(rest)
		if err != nil {
			return other, err
		}
		get := map[string]*call{
			"keys":   {op: opList, keyspace: ks, serve: s.listKeys},
			"watch":  {op: opWatch, keyspace: ks, serve: s.watchKeys},
			"digest": {op: opDigest, keyspace: ks, serve: s.getDigest},
		}[name]
		return byMethod(r, map[string]*call{http.MethodGet: get})
	case "keyspaces":
		return s.routeKeyspaces(r, rest)
	case "history":
		ks, key, err := splitAddress(name, rest)
		if err != nil {
			return other, err
		}
		return byMethod(r, map[string]*call{http.MethodGet: {op: opHistory, keyspace: ks, key: key, serve: s.getHistory}})
	case "members":
		if member, action, found := strings.Cut(rest, "/"); found && action == "force-leave" {
			name, err := url.PathUnescape(member)
			if err != nil || name == "" {
				return other, fmt.Errorf("%w: the path names no member", client.ErrBadRequest)
			}
			return byMethod(r, map[string]*call{http.MethodPost: {op: opForceLeave, key: name, serve: s.postForceLeave}})
		}
	case "session", "lock", "election", "pool", "txn":
		return s.routeStrong(r, name, rest)
	case "servers":
		if server, action, found := strings.Cut(rest, "/"); found && action == "decommission" {
			name, err := url.PathUnescape(server)
			if err != nil || name == "" {
				return other, fmt.Errorf("%w: the path names no server", client.ErrBadRequest)
			}
			return byMethod(r, map[string]*call{http.MethodPost: {op: opAdmin, key: name, serve: s.postDecommission}})
		}
	case "update":
		ks, err := unescapeSegment(rest)
		if err != nil {
			return other, err
		}
		return byMethod(r, map[string]*call{http.MethodPost: {op: opUpdate, keyspace: ks, serve: s.postUpdate}})
	}
	if t, ok := typeRoutes[name]; ok {
		return s.routeType(r, name, t, rest)
	}
	if more {
		return other, fmt.Errorf("%w: no such path", client.ErrNotFound)
	}
	switch name {
	case "members":
		return byMethod(r, map[string]*call{http.MethodGet: {op: opMembers, serve: s.getMembers}})
	case "status":
		return byMethod(r, map[string]*call{http.MethodGet: {op: opStatus, serve: s.getStatus}})
	case "leave":
		return byMethod(r, map[string]*call{http.MethodPost: {op: opLeave, serve: s.postLeave}})
	}
	return other, fmt.Errorf("%w: no such path", client.ErrNotFound)
}

// errMethod is a bad request with a status of its own.
type errMethod struct{ allow string }

func (e errMethod) Error() string { return "method not allowed; allowed here: " + e.allow }
func (e errMethod) Unwrap() error { return client.ErrBadRequest }

func byMethod(r *http.Request, calls map[string]*call) (*call, error) {
	if c := calls[r.Method]; c != nil {
		return c, nil
	}
	var allow []string
	for _, m := range []string{http.MethodGet, http.MethodHead, http.MethodPut, http.MethodPost, http.MethodDelete} {
		if calls[m] != nil {
			allow = append(allow, m)
		}
	}
	return &call{op: opOther}, errMethod{strings.Join(allow, ", ")}
}

// splitAddress splits KEYSPACE/KEY, percent-encoded, behind /v1/name/.
func splitAddress(name, escaped string) (ks, key string, err error) {
	first, rest, _ := strings.Cut(escaped, "/")
	if ks, err = unescapeSegment(first); err != nil {
		return "", "", err
	}
	if key, err = url.PathUnescape(rest); err != nil {
		return "", "", fmt.Errorf("%w: the key is not percent-encoded correctly", client.ErrBadRequest)
	}
	if key == "" {
		return "", "", fmt.Errorf("%w: the path is /v1/%s/KEYSPACE/KEY", client.ErrBadRequest, name)
	}
	return ks, key, nil
}

func unescapeSegment(escaped string) (string, error) {
	v, err := url.PathUnescape(escaped)
	if err != nil || v == "" || strings.Contains(escaped, "/") {
		return "", fmt.Errorf("%w: the path names no keyspace", client.ErrBadRequest)
	}
	return v, nil
}

// fail answers with an error of the contract.
func (s *Server) fail(w http.ResponseWriter, err error) {
	f := failures[failureOf(err)]
	status := f.status
	var method errMethod
	if errors.As(err, &method) {
		w.Header().Set("Allow", method.allow)
		status = http.StatusMethodNotAllowed
	}
	body := errorBody(f.code, err.Error())
	if c := concernOf(err); c != nil {
		body.Error.Acked, body.Error.Want = &c.Acked, c.Want
	}
	s.writeErrorBody(w, status, body)
}

func (s *Server) writeError(w http.ResponseWriter, status int, code, message string) {
	s.writeErrorBody(w, status, errorBody(code, message))
}

func (s *Server) writeErrorBody(w http.ResponseWriter, status int, body errorJSON) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(body)
}

type errorJSON struct {
	Error struct {
		Code    string `json:"code"`
		Message string `json:"message"`
		Acked   *int   `json:"acked,omitempty"` // of write_concern
		Want    int    `json:"want,omitempty"`  // and of it; left out where it is not known
	} `json:"error"`
}

func errorBody(code, message string) errorJSON {
	var e errorJSON
	e.Error.Code, e.Error.Message = code, message
	return e
}

// writeJSON answers 200.
func writeJSON(w http.ResponseWriter, v any) error {
	var body bytes.Buffer
	if err := jsonLine(&body, v); err != nil {
		return err
	}
	return writeBody(w, "application/json", body.Bytes())
}

// writeBody answers 200; net/http leaves the body out where the method is HEAD.
// What fails now is the connection: no other answer can follow.
func writeBody(w http.ResponseWriter, contentType string, body []byte) error {
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	if _, err := w.Write(body); err != nil {
		return errStreamed{err}
	}
	return nil
}

func (s *Server) serveLive(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	fmt.Fprintln(w, "ok")
}

func (s *Server) serveReady(w http.ResponseWriter, r *http.Request) {
	q := parseQuery(r)
	verbose := q.bool("verbose")
	q.duration("timeout")
	if err := q.finish(); err != nil {
		s.fail(w, err)
		return
	}
	reasons := s.backend.NotReady()
	if s.isDraining() {
		reasons = append([]string{client.ErrDraining.Error()}, reasons...)
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if len(reasons) > 0 {
		w.WriteHeader(http.StatusServiceUnavailable)
		if !verbose {
			fmt.Fprintln(w, "not ready")
			return
		}
		for _, reason := range reasons {
			fmt.Fprintln(w, "not ready:", reason)
		}
	} else {
		fmt.Fprintln(w, "ok")
	}
	if verbose {
		for _, warning := range s.backend.Warnings() {
			fmt.Fprintln(w, "warning:", warning)
		}
	}
}
