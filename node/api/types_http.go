package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/meshkv/meshkv/client"
)

// maxElements is how many elements one answer has unless a limit asks for fewer.
const maxElements = 10_000

// A typeRoute is what the path of a data type leads to.
type typeRoute struct {
	types []client.Type
	shape string
	body  func() changesBody
}

// A changesBody is the body of a POST about one key.
type changesBody interface {
	changes(key string, l lifetime) ([]client.Change, error)
}

// typeRoutes are the data types by the first segment of their paths. Never modified.
var typeRoutes = map[string]typeRoute{
	"counter": {[]client.Type{client.TypeCounter}, counterShape, func() changesBody { return new(counterBody) }},
	"set":     {[]client.Type{client.TypeSet}, setShape, func() changesBody { return new(setBody) }},
	"map":     {[]client.Type{client.TypeMap}, mapShape, func() changesBody { return new(mapBody) }},
	"flag":    {[]client.Type{client.TypeFlag, client.TypeInverseFlag}, flagShape, func() changesBody { return new(flagBody) }},
	"log":     {[]client.Type{client.TypeLog}, logShape, func() changesBody { return new(logBody) }},
	"bounded": {[]client.Type{client.TypeBounded}, boundedShape, func() changesBody { return new(boundedBody) }},
}

// routeType finds the call of a data type.
func (s *Server) routeType(r *http.Request, name string, t typeRoute, rest string) (*call, error) {
	ks, key, err := splitAddress(name, rest)
	if err != nil {
		return &call{op: opOther}, err
	}
	get := &call{op: opView, keyspace: ks, key: key, serve: t.getView(s)}
	switch t.types[0] {
	case client.TypeSet, client.TypeMap, client.TypeLog:
		get = &call{op: opElements, keyspace: ks, key: key, serve: t.getElements(s)}
	}
	return byMethod(r, map[string]*call{
		http.MethodGet:  get,
		http.MethodPost: {op: opUpdate, keyspace: ks, key: key, serve: t.post(s)},
	})
}

type serveFunc = func(ctx context.Context, w http.ResponseWriter, r *http.Request, c *call, q *query) error

func (t typeRoute) post(s *Server) serveFunc {
	return func(ctx context.Context, w http.ResponseWriter, r *http.Request, c *call, q *query) error {
		var l lifetime
		switch t.types[0] {
		case client.TypeSet, client.TypeMap:
			l = lifetime{q.duration("ttl"), q.bool("ephemeral")}
		}
		o := client.UpdateOptions{Durable: q.bool("durable"), Acks: q.acks()}
		if err := q.finish(); err != nil {
			return err
		}
		body := t.body()
		release, err := s.readJSON(w, r, body, t.shape)
		if err != nil {
			return err
		}
		defer release()
		changes, err := body.changes(c.key, l)
		if err != nil {
			return err
		}
		return s.answerUpdate(ctx, w, c.keyspace, changes, &o)
	}
}

func (s *Server) answerUpdate(ctx context.Context, w http.ResponseWriter, keyspace string, changes []client.Change, o *client.UpdateOptions) error {
	v, err := s.update(ctx, keyspace, changes, o)
	if err != nil {
		return writeFailure(err)
	}
	return writeJSON(w, writtenJSON{v.String(), string(v.Token())})
}

func (s *Server) postUpdate(ctx context.Context, w http.ResponseWriter, r *http.Request, c *call, q *query) error {
	o := client.UpdateOptions{Durable: q.bool("durable"), Acks: q.acks()}
	if err := q.finish(); err != nil {
		return err
	}
	var body updateBody
	release, err := s.readJSON(w, r, &body, updateShape)
	if err != nil {
		return err
	}
	defer release()
	changes, err := body.changes()
	if err != nil {
		return err
	}
	return s.answerUpdate(ctx, w, c.keyspace, changes, &o)
}

// view is the view of the call's key, if it is of the route's type.
func (t typeRoute) view(ctx context.Context, ks contents, c *call, after client.Token) (client.View, error) {
	v, err := ks.View(ctx, c.key, &client.GetOptions{After: after})
	if err != nil {
		return v, err
	}
	for _, want := range t.types {
		if v.Type == want {
			return v, nil
		}
	}
	return v, client.WrongType(v.Type, t.types[0])
}

func (t typeRoute) getView(s *Server) serveFunc {
	return func(ctx context.Context, w http.ResponseWriter, _ *http.Request, c *call, q *query) error {
		after := client.Token(q.string("after"))
		if err := q.finish(); err != nil {
			return err
		}
		ks, err := s.contents(c.keyspace)
		if err != nil {
			return err
		}
		v, err := t.view(ctx, ks, c, after)
		if err != nil {
			return err
		}
		return writeJSON(w, v)
	}
}

// getElements answers one page as an object, or all elements as lines.
func (t typeRoute) getElements(s *Server) serveFunc {
	return func(ctx context.Context, w http.ResponseWriter, r *http.Request, c *call, q *query) error {
		o := client.ElementsOptions{Type: t.types[0], After: q.position("after"), Limit: q.count("limit"), Seen: client.Token(q.string("seen"))}
		switch o.Type {
		case client.TypeSet:
			if e, ok := q.take("element"); ok {
				o.Under = []string{e}
			}
		case client.TypeMap:
			o.Under = q.path("path")
		}
		if err := q.finish(); err != nil {
			return err
		}
		ks, err := s.contents(c.keyspace)
		if err != nil {
			return err
		}
		v, err := t.view(ctx, ks, c, o.Seen)
		if err != nil {
			return err
		}
		o.Seen = ""
		if accepts(r, "application/x-ndjson") {
			return s.streamElements(ctx, w, ks, c.key, o)
		}
		if o.Limit == 0 || o.Limit > maxElements {
			o.Limit = maxElements
		}
		want := o.Limit
		o.Limit++ // one more tells whether there are others
		elements, more, err := takeElements(ctx, ks, c.key, o)
		if err != nil {
			return err
		}
		if len(elements) > want {
			elements, more = elements[:want], true
		}
		return writeJSON(w, client.Collected{View: v, Elements: elements, More: more})
	}
}

// streamElements writes the elements page by page. An error after the first line is a last
// line of its own.
func (s *Server) streamElements(ctx context.Context, w http.ResponseWriter, ks contents, key string, o client.ElementsOptions) error {
	out := newLineStream(w, s.opts.WriteTimeout, false)
	for {
		elements, more, err := takeElements(ctx, ks, key, o)
		if err != nil {
			return out.fail(err)
		}
		out.begin()
		for i := range elements {
			if err := out.line("", "", elements[i]); err != nil {
				return errStreamed{err}
			}
		}
		if err := out.flush(); err != nil {
			return errStreamed{err}
		}
		if !more {
			return nil
		}
		o.After = elements[len(elements)-1].Position
		if o.Limit > 0 {
			o.Limit -= len(elements)
		}
	}
}

// position is a position that meshkv printed.
func (q *query) position(name string) client.Position {
	v, ok := q.take(name)
	if !ok {
		return ""
	}
	p, err := client.ParsePosition(v)
	if err != nil || p == "" {
		q.fail("parameter %s is a position as printed by meshkv", name)
	}
	return p
}

// path is the path of a field: a JSON list of text, or the one field of a path that does
// not begin with [.
func (q *query) path(name string) []string {
	v, ok := q.take(name)
	if !ok {
		return nil
	}
	path := []string{v}
	if len(v) > 0 && v[0] == '[' {
		path = nil
		if err := json.Unmarshal([]byte(v), &path); err != nil {
			q.fail(`parameter %s is a field, or a list of fields such as ["a","b"]`, name)
			return nil
		}
	}
	if err := client.CheckFields(path); err != nil && q.err == nil {
		q.err = fmt.Errorf("parameter %s: %w", name, err)
	}
	return path
}
