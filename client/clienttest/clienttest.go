// Package clienttest is the conformance suite of client.Cluster: what every
// implementation promises about keyspaces, whether embedded or remote.
package clienttest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/meshkv/meshkv/client"
)

// patience bounds what should happen at once. It is generous: it is only used
// up by a test that fails.
const patience = 10 * time.Second

// Run runs the suite. Each test opens a cluster of its own, empty and of one
// node; open sees to its end with t.Cleanup.
func Run(t *testing.T, open func(t *testing.T) client.Cluster) {
	tests := []struct {
		name string
		test func(t *testing.T, ctx context.Context, c client.Cluster)
	}{
		{"put and get", testPutGet},
		{"opaque keys and values", testOpaque},
		{"value is copied", testValueCopied},
		{"delete", testDelete},
		{"bad requests", testBadRequests},
		{"strong options", testStrongOptions},
		{"time to live", testTTL},
		{"ephemeral", testEphemeral},
		{"token", testToken},
		{"list order, limit and after", testList},
		{"list of many", testListMany},
		{"list stops early", testListStops},
		{"keyspaces are apart", testKeyspacesApart},
		{"info and digest", testInfo},
		{"cluster", testCluster},
		{"ended context", testEndedContext},
		{"watch snapshot and changes", testWatch},
		{"watch prefix is literal", testWatchPrefix},
		{"watch updates only", testWatchUpdatesOnly},
		{"watch resumes", testWatchResumes},
		{"watch unknown cursor", testWatchUnknownCursor},
		{"watch expiry", testWatchExpiry},
		{"watch filters", testWatchFilters},
		{"watch next after an ended context", testWatchContext},
		{"watch close", testWatchClose},
		{"watch under writes", testWatchUnderWrites},
		{"slow watch blocks nobody", testSlowWatch},
		{"concurrent use", testConcurrent},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
			defer cancel()
			tt.test(t, ctx, open(t))
		})
	}
}

func keyspace(t *testing.T, ctx context.Context, c client.Cluster, name string) client.Keyspace {
	t.Helper()
	k, err := c.Keyspace(ctx, name)
	if err != nil {
		t.Fatalf("Keyspace(%q): %v", name, err)
	}
	return k
}

func put(t *testing.T, ctx context.Context, k client.Keyspace, key, value string, o *client.PutOptions) client.Version {
	t.Helper()
	v, err := k.Put(ctx, key, []byte(value), o)
	if err != nil {
		t.Fatalf("Put(%q): %v", key, err)
	}
	if v.IsZero() {
		t.Fatalf("Put(%q) gave no version", key)
	}
	return v
}

func remove(t *testing.T, ctx context.Context, k client.Keyspace, key string) client.Deletion {
	t.Helper()
	d, err := k.Delete(ctx, key, nil)
	if err != nil {
		t.Fatalf("Delete(%q): %v", key, err)
	}
	return d
}

func wantValue(t *testing.T, ctx context.Context, k client.Keyspace, key, want string) {
	t.Helper()
	e, err := k.Get(ctx, key, nil)
	if err != nil || string(e.Value) != want || e.Key != key {
		t.Fatalf("Get(%q): got %q of %q, %v; want %q", key, e.Value, e.Key, err, want)
	}
}

func wantError(t *testing.T, what string, err error, anyOf ...error) {
	t.Helper()
	for _, want := range anyOf {
		if errors.Is(err, want) {
			return
		}
	}
	t.Errorf("%s: got %v, want %v", what, err, anyOf)
}

func keys(t *testing.T, ctx context.Context, k client.Keyspace, prefix string, o *client.ListOptions) []string {
	t.Helper()
	var out []string
	for e, err := range k.List(ctx, prefix, o) {
		if err != nil {
			t.Fatalf("List(%q): %v", prefix, err)
		}
		out = append(out, e.Key)
	}
	return out
}

func watch(t *testing.T, ctx context.Context, k client.Keyspace, prefix string, o *client.WatchOptions) client.Watch {
	t.Helper()
	w, err := k.Watch(ctx, prefix, o)
	if err != nil {
		t.Fatalf("Watch(%q): %v", prefix, err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

// next is the next event that is no heartbeat.
func next(t *testing.T, ctx context.Context, w client.Watch) client.Event {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		ev, err := w.Next(ctx)
		if err != nil {
			t.Fatalf("Next: %v", err)
		}
		if ev.Type != client.EventHeartbeat {
			return ev
		}
	}
}

func wantEvent(t *testing.T, ctx context.Context, w client.Watch, typ client.EventType, key, value string) client.Event {
	t.Helper()
	ev := next(t, ctx, w)
	if ev.Type != typ || ev.Entry.Key != key || typ == client.EventPut && string(ev.Entry.Value) != value {
		t.Fatalf("event: got %s %q %q, want %s %q %q", ev.Type, ev.Entry.Key, ev.Entry.Value, typ, key, value)
	}
	return ev
}
