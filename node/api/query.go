package api

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/meshkv/meshkv/client"
)

// A query is the parameters of a call. Each may be given once; a method that
// reads one records the first error, and whatever nobody read is unknown.
type query struct {
	values url.Values
	known  map[string]bool
	err    error
}

func parseQuery(r *http.Request) *query {
	q := &query{known: make(map[string]bool)}
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		q.fail("the query is malformed: %v", err)
	}
	q.values = values
	return q
}

func (q *query) fail(format string, args ...any) {
	if q.err == nil {
		q.err = fmt.Errorf("%w: %s", client.ErrBadRequest, fmt.Sprintf(format, args...))
	}
}

func (q *query) take(name string) (string, bool) {
	q.known[name] = true
	v := q.values[name]
	if len(v) > 1 {
		q.fail("parameter %s is given twice", name)
	}
	if len(v) == 0 {
		return "", false
	}
	return v[0], true
}

func (q *query) string(name string) string {
	v, _ := q.take(name)
	return v
}

// bool is true for a parameter without value.
func (q *query) bool(name string) bool {
	switch v, ok := q.take(name); v {
	case "":
		return ok
	case "1", "true":
		return true
	case "0", "false":
	default:
		q.fail("parameter %s is true or false", name)
	}
	return false
}

// duration is 0 if the parameter is not given, and positive if it is.
func (q *query) duration(name string) time.Duration {
	v, ok := q.take(name)
	if !ok {
		return 0
	}
	d, err := time.ParseDuration(v)
	if err != nil || d <= 0 {
		q.fail("parameter %s is a positive duration such as 30s", name)
	}
	return d
}

func (q *query) count(name string) int {
	v, ok := q.take(name)
	if !ok {
		return 0
	}
	n, err := strconv.ParseUint(v, 10, 31)
	if err != nil {
		q.fail("parameter %s is a number of entries", name)
	}
	return int(n)
}

// acks is how many members are to have a write.
func (q *query) acks() client.AckPolicy {
	p, err := client.ParseAcks(q.string("acks"))
	if err != nil {
		q.fail("parameter acks is local, quorum, all or a number of members from 1 to %d", client.MaxAcks)
	}
	return p
}

// version is a version that meshkv printed, and not the empty one if it is given.
func (q *query) version(name string) client.Version {
	v, ok := q.take(name)
	if !ok {
		return client.Version{}
	}
	version, err := client.ParseVersion(v)
	if err != nil || version.IsZero() {
		q.fail("parameter %s is a version as printed by meshkv", name)
	}
	return version
}

// consistency is what a read asks for; neither is the keyspace's default.
func (q *query) consistency() (local, linearizable bool) {
	switch q.string("consistency") {
	case "":
	case "local":
		local = true
	case "linearizable":
		linearizable = true
	default:
		q.fail("parameter consistency is local or linearizable")
	}
	return local, linearizable
}

// needsStrong refuses what no eventual keyspace offers.
func (q *query) needsStrong(what string) {
	if q.err == nil {
		q.err = fmt.Errorf("%w: %s", client.ErrNeedsStrong, what)
	}
}

// finish returns the first error. It is called when all were read.
func (q *query) finish() error {
	for _, name := range slices.Sorted(maps.Keys(q.values)) {
		if !q.known[name] {
			q.fail("unknown parameter %s; known here: %s", strconv.Quote(name), strings.Join(slices.Sorted(maps.Keys(q.known)), ", "))
		}
	}
	return q.err
}
