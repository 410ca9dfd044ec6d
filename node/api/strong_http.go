package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/meshkv/meshkv/client"
)

const (
	// maxStrongBody bounds the body of a call of a strong keyspace: a command of a
	// megabyte, written as base64.
	maxStrongBody = 2 << 20
	// maxLockWait bounds how long one request may wait for a lock.
	maxLockWait = time.Hour
	// lockRound is how long the backend is asked to wait at a time.
	lockRound = 30 * time.Second
	// abortTimeout bounds the call that takes a claim back.
	abortTimeout = 5 * time.Second
)

// routeStrong finds the calls on what strong keyspaces offer. Names of locks, elections
// and pools may hold slashes, as keys may; /watch at the end of an election's path, not
// percent-encoded, is not part of its name.
func (s *Server) routeStrong(r *http.Request, kind, rest string) (*call, error) {
	other := &call{op: opOther}
	first, escaped, sub := strings.Cut(rest, "/")
	ks, err := unescapeSegment(first)
	if err != nil {
		return other, err
	}
	if !sub {
		switch kind {
		case "session":
			return byMethod(r, map[string]*call{http.MethodPost: {op: opSession, keyspace: ks, serve: s.postSession}})
		case "txn":
			return byMethod(r, map[string]*call{http.MethodPost: {op: opTxn, keyspace: ks, serve: s.postTxn}})
		}
	}
	watched := false
	if kind == "election" {
		escaped, watched = strings.CutSuffix(escaped, "/watch")
	}
	name, err := url.PathUnescape(escaped)
	if err != nil || len(name) == 0 || len(name) > maxKey || kind == "txn" {
		return other, fmt.Errorf("%w: the path is /v1/%s/KEYSPACE and, but for a transaction or a new session, a name of 1 to %d bytes", client.ErrBadRequest, kind, maxKey)
	}
	at := func(op operation, serve func(context.Context, http.ResponseWriter, *http.Request, *call, *query) error) *call {
		return &call{op: op, keyspace: ks, key: name, serve: serve}
	}
	switch {
	case watched:
		return byMethod(r, map[string]*call{http.MethodGet: at(opWatch, s.watchElection)})
	case kind == "session":
		return byMethod(r, map[string]*call{http.MethodPut: at(opSession, s.putSession), http.MethodDelete: at(opSession, s.deleteSession)})
	case kind == "lock":
		return byMethod(r, map[string]*call{
			http.MethodGet: at(opLock, s.getLock), http.MethodPost: at(opLock, s.postLock), http.MethodDelete: at(opLock, s.deleteLock),
		})
	case kind == "election":
		return byMethod(r, map[string]*call{
			http.MethodGet: at(opLock, s.getElection), http.MethodPost: at(opLock, s.postElection),
			http.MethodPut: at(opLock, s.putElection), http.MethodDelete: at(opLock, s.deleteLock),
		})
	}
	return byMethod(r, map[string]*call{
		http.MethodGet: at(opPool, s.getPool), http.MethodPut: at(opPool, s.putPool),
		http.MethodPost: at(opPool, s.postPool), http.MethodDelete: at(opPool, s.deletePool),
	})
}

// readJSON reads the body into v. It is counted as in flight until release is called.
func (s *Server) readJSON(w http.ResponseWriter, r *http.Request, v any, shape string) (release func(), err error) {
	size := r.ContentLength
	if size < 0 || size > maxStrongBody {
		size = maxStrongBody // what it may become
	}
	if s.inflightBytes.Add(size) > s.opts.MaxInflightBytes {
		s.inflightBytes.Add(-size)
		s.metrics.rejected(rejectInflight)
		return nil, errTooManyInflight
	}
	done := func() { s.inflightBytes.Add(-size) }
	defer func() {
		if err != nil {
			done()
		}
	}()
	if r.ContentLength > maxStrongBody {
		return nil, fmt.Errorf("%w: a body of %d bytes, at most %d", client.ErrTooLarge, r.ContentLength, maxStrongBody)
	}
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxStrongBody))
	d.DisallowUnknownFields()
	err = d.Decode(v)
	var large *http.MaxBytesError
	switch {
	case err == nil && !d.More():
		return done, nil
	case errors.Is(err, io.EOF):
		return done, nil // no body: nothing is set
	case errors.As(err, &large):
		return nil, fmt.Errorf("%w: a body of more than %d bytes", client.ErrTooLarge, maxStrongBody)
	case err == nil:
		err = errors.New("there is more than one value")
	}
	return nil, fmt.Errorf("%w: the body is %s: %w", client.ErrBadRequest, shape, err)
}

// A textOrBytes is what JSON says as text under one name, or as base64 under another.
type textOrBytes struct {
	text *string
	b64  *[]byte
}

func (t textOrBytes) bytes(name string) ([]byte, error) {
	switch {
	case t.text != nil && t.b64 != nil:
		return nil, fmt.Errorf("%w: %s and %s_b64 exclude each other", client.ErrBadRequest, name, name)
	case t.b64 != nil:
		return *t.b64, nil
	case t.text == nil:
		return nil, nil
	case !utf8.ValidString(*t.text) || strings.ContainsRune(*t.text, utf8.RuneError):
		// encoding/json replaces what is not UTF-8, and that would be stored in silence.
		return nil, fmt.Errorf("%w: %s is not UTF-8 text; bytes are given as %s_b64", client.ErrBadRequest, name, name)
	}
	return []byte(*t.text), nil
}

// A sessionParam is a session in JSON: its id as a string, or as a number.
type sessionParam client.SessionID

// UnmarshalJSON implements json.Unmarshaler.
func (p *sessionParam) UnmarshalJSON(b []byte) error {
	id, err := client.ParseSessionID(string(bytes.Trim(b, `"`)))
	if err != nil {
		return errors.New("a session is the id that it was given")
	}
	*p = sessionParam(id)
	return nil
}

// A durationParam is a duration in JSON, as Go writes it.
type durationParam time.Duration

// UnmarshalJSON implements json.Unmarshaler.
func (p *durationParam) UnmarshalJSON(b []byte) error {
	var text string
	if err := json.Unmarshal(b, &text); err != nil {
		return errors.New("a duration is written as in \"10s\"")
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return fmt.Errorf("%q is no duration such as \"10s\"", text)
	}
	*p = durationParam(d)
	return nil
}

// requestID is the parameter by which a call takes effect once.
func (q *query) requestID() string {
	id, ok := q.take("request-id")
	if ok && (len(id) == 0 || len(id) > 64) {
		q.fail("parameter request-id has 1 to 64 bytes, and no other request has the same")
	}
	return id
}

func (q *query) number(name string) (uint64, bool) {
	v, ok := q.take(name)
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(v, 10, 64)
	if err != nil {
		q.fail("parameter %s is a number", name)
	}
	return n, true
}

func (q *query) session() client.SessionID {
	v, ok := q.take("session")
	if !ok {
		return 0
	}
	id, err := client.ParseSessionID(v)
	if err != nil {
		q.fail("parameter session is the id that the session was given")
	}
	return id
}

type sessionJSON struct {
	ID  string `json:"id"`
	TTL string `json:"ttl"`
}

func (s *Server) postSession(ctx context.Context, w http.ResponseWriter, r *http.Request, c *call, q *query) error {
	id := q.requestID()
	if err := q.finish(); err != nil {
		return err
	}
	body := struct {
		TTL durationParam `json:"ttl"`
	}{durationParam(15 * time.Second)}
	release, err := s.readJSON(w, r, &body, `{"ttl":"15s"}`)
	if err != nil {
		return err
	}
	defer release()
	if ttl := time.Duration(body.TTL); ttl < client.MinSessionTTL || ttl > client.MaxSessionTTL {
		return fmt.Errorf("%w: the ttl of a session is from %s to %s", client.ErrBadRequest, client.MinSessionTTL, client.MaxSessionTTL)
	}
	reply, err := s.callStrong(ctx, c.keyspace, &client.StrongCall{Kind: client.CallGrant, Request: id, TTL: time.Duration(body.TTL).Milliseconds()})
	if err != nil {
		return err
	}
	return writeJSON(w, sessionJSON{reply.Session.String(), (time.Duration(reply.TTL) * time.Millisecond).String()})
}

// sessionOf is the session that the path names.
func sessionOf(c *call) (client.SessionID, error) {
	id, err := client.ParseSessionID(c.key)
	if err != nil {
		return 0, fmt.Errorf("%w: the path is /v1/session/KEYSPACE/ID, with the id that the session was given", client.ErrBadRequest)
	}
	return id, nil
}

func (s *Server) putSession(ctx context.Context, w http.ResponseWriter, _ *http.Request, c *call, q *query) error {
	id, err := sessionOf(c)
	if err = errors.Join(q.finish(), err); err != nil {
		return err
	}
	reply, err := s.callStrong(ctx, c.keyspace, &client.StrongCall{Kind: client.CallKeepAlive, Session: id})
	if err != nil {
		return err
	}
	return writeJSON(w, sessionJSON{id.String(), (time.Duration(reply.TTL) * time.Millisecond).String()})
}

func (s *Server) deleteSession(ctx context.Context, w http.ResponseWriter, _ *http.Request, c *call, q *query) error {
	request := q.requestID()
	id, err := sessionOf(c)
	if err = errors.Join(q.finish(), err); err != nil {
		return err
	}
	if _, err := s.callStrong(ctx, c.keyspace, &client.StrongCall{Kind: client.CallRevoke, Request: request, Session: id}); err != nil {
		return err
	}
	return writeJSON(w, map[string]any{"id": id.String(), "ended": true})
}

// A claimBody is what POST of locks and elections takes.
type claimBody struct {
	Session  sessionParam  `json:"session"`
	Wait     durationParam `json:"wait"`
	Value    *string       `json:"value"`
	ValueB64 *[]byte       `json:"value_b64"`
	Mode     string        `json:"mode"`
	Places   uint64        `json:"places"`
	Delay    durationParam `json:"delay"`
	Claim    uint64        `json:"claim"`
}

func (b *claimBody) call(name string) (*client.StrongCall, error) {
	value, err := textOrBytes{b.Value, b.ValueB64}.bytes("value")
	if err != nil {
		return nil, err
	}
	call := &client.StrongCall{
		Kind: client.CallAcquire, Name: name, Session: client.SessionID(b.Session), Claim: b.Claim, Value: value,
		Places: b.Places, Delay: (time.Duration(b.Delay) + time.Millisecond - 1).Milliseconds(),
	}
	switch b.Mode {
	case "", "exclusive":
		call.Mode = client.Exclusive
	case "shared":
		call.Mode = client.Shared
	case "place":
		call.Mode = client.Place
	default:
		return nil, fmt.Errorf("%w: mode is exclusive, shared or place", client.ErrBadRequest)
	}
	switch {
	case call.Session == 0:
		return nil, fmt.Errorf("%w: a lock is bound to a session: make one with POST /v1/session/KEYSPACE and give its id as session", client.ErrBadRequest)
	case (call.Mode == client.Place) != (b.Places > 0):
		return nil, fmt.Errorf("%w: mode place, and no other, has a number of places", client.ErrBadRequest)
	case time.Duration(b.Delay) > client.MaxSessionTTL:
		return nil, fmt.Errorf("%w: delay is at most %s", client.ErrBadRequest, client.MaxSessionTTL)
	case time.Duration(b.Wait) > maxLockWait:
		return nil, fmt.Errorf("%w: wait is at most %s; ask again then", client.ErrBadRequest, maxLockWait)
	}
	return call, nil
}

// claim makes a claim and waits for its grant. Without success it is taken back.
func (s *Server) claim(w http.ResponseWriter, r *http.Request, c *call, q *query) (*client.StrongCall, client.StrongReply, error) {
	timeout := q.duration("timeout")
	var none client.StrongReply
	if err := q.finish(); err != nil {
		return nil, none, err
	}
	rc := http.NewResponseController(w)
	// Not supported by a recorder in tests, and nothing else depends on it.
	_ = rc.SetReadDeadline(time.Now().Add(s.opts.Timeout))
	var body claimBody
	release, err := s.readJSON(w, r, &body, `{"session":"7","wait":"10s","value":"text"}`)
	if err != nil {
		return nil, none, err
	}
	defer release()
	call, err := body.call(c.key)
	if err != nil {
		return nil, none, err
	}
	wait := time.Duration(body.Wait)
	if timeout == 0 {
		timeout = s.opts.Timeout + wait
	}
	_ = rc.SetReadDeadline(time.Time{}) // its end would end the request's context
	_ = rc.SetWriteDeadline(time.Now().Add(timeout + s.opts.WriteTimeout))
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	ctx, stop := s.untilDraining(ctx)
	defer stop()
	reply, placed, err := s.awaitGrant(ctx, c.keyspace, call, wait)
	if err == nil && reply.Token == 0 {
		err = errNotObtained
	}
	if err == nil || !placed || errors.Is(err, client.ErrSessionLost) {
		return call, reply, err
	}
	back, cancelBack := context.WithTimeout(context.WithoutCancel(ctx), abortTimeout)
	defer cancelBack()
	_, aerr := s.callStrong(back, c.keyspace, &client.StrongCall{Kind: client.CallAbort, Name: call.Name, Session: call.Session, Claim: call.Claim})
	switch {
	case aerr != nil && !errors.Is(aerr, client.ErrNotHeld) && !errors.Is(aerr, client.ErrSessionLost):
		err = fmt.Errorf("%w: the claim may still be there: %w", client.ErrUnknownOutcome, err)
	case context.Cause(ctx) == client.ErrDraining:
		err = client.ErrDraining
	case errors.Is(err, client.ErrUnknownOutcome):
		err = errNotObtained // whatever it was, it was taken back
	}
	return call, reply, err
}

var errNotObtained = fmt.Errorf("%w: the lock was not obtained in time", client.ErrConflict)

// awaitGrant repeats a claim until it is granted or wait is over. placed says that the
// claim may be in the queue, or granted.
func (s *Server) awaitGrant(ctx context.Context, keyspace string, call *client.StrongCall, wait time.Duration) (reply client.StrongReply, placed bool, err error) {
	call.Try = wait <= 0
	over := time.Now().Add(wait)
	for {
		left := max(time.Until(over), 0)
		call.Wait = min(left, lockRound).Milliseconds()
		began := time.Now()
		reply, err := s.callStrong(ctx, keyspace, call)
		placed = placed || err == nil || errors.Is(err, client.ErrUnknownOutcome)
		if err != nil || reply.Token != 0 || left <= lockRound {
			return reply, placed, err
		}
		if time.Since(began) < lockRound/2 { // the backend did not wait
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
				return reply, placed, ctx.Err()
			}
		}
	}
}

// untilDraining is ctx that ends as draining when the server does.
func (s *Server) untilDraining(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-s.draining:
			cancel(client.ErrDraining)
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(nil); <-done }
}

func (s *Server) postLock(_ context.Context, w http.ResponseWriter, r *http.Request, c *call, q *query) error {
	claim, reply, err := s.claim(w, r, c, q)
	if err != nil {
		return err
	}
	return writeJSON(w, struct {
		Token   client.FencingToken `json:"token"`
		Session string              `json:"session"`
		Version string              `json:"version"`
	}{reply.Token, claim.Session.String(), client.Version{Seq: reply.Revision}.String()})
}

func (s *Server) postElection(_ context.Context, w http.ResponseWriter, r *http.Request, c *call, q *query) error {
	claim, reply, err := s.claim(w, r, c, q)
	if err != nil {
		return err
	}
	return writeJSON(w, client.Leader{Known: true, Elected: true, Value: claim.Value, Token: reply.Token, Session: claim.Session})
}

// deleteLock gives a lock up, or resigns: what the session claimed, whether it waits or
// holds, or what is held under a token.
func (s *Server) deleteLock(ctx context.Context, w http.ResponseWriter, _ *http.Request, c *call, q *query) error {
	call := &client.StrongCall{Kind: client.CallAbort, Name: c.key, Session: q.session(), Request: q.requestID()}
	call.Claim, _ = q.number("claim")
	token, byToken := q.number("token")
	if err := q.finish(); err != nil {
		return err
	}
	switch {
	case byToken:
		call.Kind, call.Token = client.CallRelease, client.FencingToken(token)
	case call.Session == 0:
		return fmt.Errorf("%w: parameter session says whose lock it is, or token which", client.ErrBadRequest)
	}
	if _, err := s.callStrong(ctx, c.keyspace, call); err != nil {
		return err
	}
	return writeJSON(w, map[string]any{"name": c.key, "released": true})
}

func (s *Server) getLock(ctx context.Context, w http.ResponseWriter, _ *http.Request, c *call, q *query) error {
	if err := q.finish(); err != nil {
		return err
	}
	reply, err := s.callStrong(ctx, c.keyspace, &client.StrongCall{Kind: client.CallLockInfo, Name: c.key})
	if err != nil {
		return err
	}
	return writeJSON(w, client.LockInfo{Name: c.key, Holders: reply.Holders, Waiting: reply.Waiting, Revision: reply.Revision})
}

// observe is an Observer of the election, made for one request.
func (s *Server) observe(ctx context.Context, c *call) (client.Observer, func(), error) {
	b, err := s.strongBackend()
	if err != nil {
		return nil, nil, err
	}
	h := client.NewStrong(b, strongName{name: c.keyspace})
	o, err := h.Observe(ctx, c.key)
	if err != nil {
		return nil, nil, err
	}
	return o, func() {
		o.Close()
		h.Close(ctx) // it has no sessions
	}, nil
}

// strongName is the keyspace of a handle that is used for its calls alone.
type strongName struct {
	client.Keyspace
	name string
}

func (n strongName) Name() string { return n.name }

func (s *Server) getElection(ctx context.Context, w http.ResponseWriter, _ *http.Request, c *call, q *query) error {
	if err := q.finish(); err != nil {
		return err
	}
	o, done, err := s.observe(ctx, c)
	if err != nil {
		return err
	}
	defer done()
	leader, err := o.Next(ctx)
	if err != nil {
		return err
	}
	return writeJSON(w, leader)
}

func (s *Server) putElection(ctx context.Context, w http.ResponseWriter, r *http.Request, c *call, q *query) error {
	id := q.requestID()
	if err := q.finish(); err != nil {
		return err
	}
	var body struct {
		Token    client.FencingToken `json:"token"`
		Value    *string             `json:"value"`
		ValueB64 *[]byte             `json:"value_b64"`
	}
	release, err := s.readJSON(w, r, &body, `{"token":7,"value":"text"}`)
	if err != nil {
		return err
	}
	defer release()
	value, err := textOrBytes{body.Value, body.ValueB64}.bytes("value")
	if err != nil {
		return err
	}
	if body.Token == 0 {
		return fmt.Errorf("%w: token says under which the election was won", client.ErrBadRequest)
	}
	if _, err := s.callStrong(ctx, c.keyspace, &client.StrongCall{Kind: client.CallProclaim, Request: id, Name: c.key, Token: body.Token, Value: value}); err != nil {
		return err
	}
	return writeJSON(w, map[string]any{"name": c.key, "proclaimed": true})
}

// watchElection streams who leads, a line a change, until the client hangs up or the
// server drains.
func (s *Server) watchElection(ctx context.Context, w http.ResponseWriter, r *http.Request, c *call, q *query) error {
	if err := q.finish(); err != nil {
		return err
	}
	if err := s.admitWatch(overHTTP); err != nil {
		return err
	}
	defer s.releaseWatch(overHTTP)
	ctx, stop := s.untilDraining(ctx)
	defer stop()
	o, done, err := s.observe(ctx, c)
	if err != nil {
		return err
	}
	defer done()
	out := newLineStream(w, s.opts.WriteTimeout, accepts(r, "text/event-stream"))
	var last client.Leader
	for said := false; ; {
		silence, cancel := context.WithTimeout(ctx, s.opts.Heartbeat)
		leader, err := o.Next(silence)
		quiet := silence.Err() != nil && ctx.Err() == nil
		cancel()
		switch {
		case err == nil:
			last, said = leader, true
		case quiet && said:
			leader = last // the state again, as a sign of life
		case quiet:
			continue
		case context.Cause(ctx) == client.ErrDraining:
			return out.fail(client.ErrDraining)
		default:
			return out.fail(err)
		}
		out.begin()
		if err := out.line("leader", "", leader); err != nil {
			return errStreamed{err}
		}
		s.metrics.events[overHTTP].Inc()
		if err := out.flush(); err != nil {
			return errStreamed{err}
		}
	}
}
