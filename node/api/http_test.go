package api

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/node/api/internal/memory"
)

// exchange sends one request over a real connection, the path as it is.
func exchange(t *testing.T, addr, method, target, body string, header ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+addr, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	path, query, _ := strings.Cut(target, "?")
	req.URL.Opaque = "//" + addr + path
	req.URL.RawQuery = query
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(data)
}

// fill puts the entries that the tables below read.
func fill(t *testing.T, b *memory.Cluster) {
	t.Helper()
	k, err := b.Keyspace(t.Context(), "k")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range []struct{ key, value string }{
		{"a", "1"}, {"dir/b c", "2"}, {"dir//../x", "3"}, {"\xff", "4"}, {"empty", ""}, {"<&>", "<&>"},
	} {
		if _, err := k.Put(t.Context(), e.key, []byte(e.value), nil); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRoutes(t *testing.T) {
	key1024, key1025 := strings.Repeat("x", 1024), strings.Repeat("x", 1025)
	tests := []struct {
		name, method, target, body string
		header                     []string
		status                     int
		want                       string // the body contains it
	}{
		{"put", "PUT", "/v1/kv/k/new", "v", nil, 200, `{"version":"5-7","token":"5-7"}`},
		{"put options", "PUT", "/v1/kv/k/new?ttl=30s&ephemeral=true&durable&acks=local&timeout=1s", "v", nil, 200, `"version"`},
		{"put of an empty value", "PUT", "/v1/kv/k/new", "", nil, 200, `"version"`},
		{"put of the longest key", "PUT", "/v1/kv/k/" + key1024, "", nil, 200, `"version"`},
		{"put of a key too long", "PUT", "/v1/kv/k/" + key1025, "", nil, 400, `"code":"bad_request"`},
		{"put of a value too large for the keyspace", "PUT", "/v1/kv/k/a", strings.Repeat("x", 64<<10+1), nil, 413, `"code":"too_large"`},
		{"put of a value too large for any", "PUT", "/v1/kv/k/a", strings.Repeat("x", 1<<20+1), nil, 413, `"code":"too_large"`},
		{"put without key", "PUT", "/v1/kv/k/", "", nil, 400, `/v1/kv/KEYSPACE/KEY`},
		{"put without keyspace", "PUT", "/v1/kv/", "", nil, 400, `"code":"bad_request"`},
		{"put in no keyspace name", "PUT", "/v1/kv/UPPER/a", "", nil, 400, `[a-z0-9]`},
		{"put in a system keyspace", "PUT", "/v1/kv/_sys/a", "", nil, 400, `"code":"bad_request"`},
		{"put if absent", "PUT", "/v1/kv/k/a?if-absent=true", "", nil, 412, `"code":"needs_strong"`},
		{"put if version", "PUT", "/v1/kv/k/a?if-version=5-1", "", nil, 412, `"code":"needs_strong"`},
		{"put if nonsense", "PUT", "/v1/kv/k/a?if-version=zz", "", nil, 400, `if-version`},
		{"put acks quorum", "PUT", "/v1/kv/k/acked?acks=quorum", "", nil, 200, `"version"`},
		{"put acks 2", "PUT", "/v1/kv/k/acked?acks=2", "", nil, 200, `"version"`},
		{"put acks nonsense", "PUT", "/v1/kv/k/a?acks=some", "", nil, 400, `number of members`},
		{"put request id", "PUT", "/v1/kv/k/a?request-id=1", "", nil, 412, `"code":"needs_strong"`},
		{"put bad ttl", "PUT", "/v1/kv/k/a?ttl=never", "", nil, 400, `duration`},
		{"put negative ttl", "PUT", "/v1/kv/k/a?ttl=-1s", "", nil, 400, `duration`},
		{"put bad bool", "PUT", "/v1/kv/k/a?durable=maybe", "", nil, 400, `true or false`},
		{"put unknown parameter", "PUT", "/v1/kv/k/a?tll=1s", "", nil, 400, `unknown parameter \"tll\"`},
		{"put parameter twice", "PUT", "/v1/kv/k/a?ttl=1s&ttl=2s", "", nil, 400, `given twice`},
		{"put broken query", "PUT", "/v1/kv/k/a?ttl=%zz", "", nil, 400, `malformed`},
		{"bad timeout", "GET", "/v1/kv/k/a?timeout=0", "", nil, 400, `duration`},

		{"force-leave of nobody", "POST", "/v1/members/no%20body/force-leave", "", nil, 404, `"code":"not_found"`},
		{"force-leave of one that lives", "POST", "/v1/members/memory/force-leave", "", nil, 400, `"code":"bad_request"`},
		{"force-leave of one that failed", "POST", "/v1/members/failed/force-leave", "", nil, 200, `{"left":"failed"}`},
		{"force-leave without a name", "POST", "/v1/members//force-leave", "", nil, 400, `names no member`},
		{"force-leave by GET", "GET", "/v1/members/failed/force-leave", "", nil, 405, `allowed here: POST`},

		{"get", "GET", "/v1/kv/k/a", "", nil, 200, "1"},
		{"get nested", "GET", "/v1/kv/k/dir/b%20c", "", nil, 200, "2"},
		{"get nested escaped", "GET", "/v1/kv/k/dir%2fb%20c", "", nil, 200, "2"},
		{"get unclean", "GET", "/v1/kv/k/dir//../x", "", nil, 200, "3"},
		{"get not UTF-8", "GET", "/v1/kv/k/%ff", "", nil, 200, "4"},
		{"get empty", "GET", "/v1/kv/k/empty", "", nil, 200, ""},
		{"get head", "HEAD", "/v1/kv/k/a", "", nil, 200, ""},
		{"get absent", "GET", "/v1/kv/k/none", "", nil, 404, `{"error":{"code":"not_found","message":"not found"}}`},
		{"get json", "GET", "/v1/kv/k/a", "", []string{"Accept", "text/html, application/json;q=0.9"}, 200, `{"key":"a","value":"MQ==","version":"5-1","origin":"memory","modified":"`},
		{"get json empty", "GET", "/v1/kv/k/empty", "", []string{"Accept", "application/json"}, 200, `"value":""`},
		{"get json not UTF-8", "GET", "/v1/kv/k/%ff", "", []string{"Accept", "application/json"}, 200, `{"key_b64":"/w==","value"`},
		{"get siblings", "GET", "/v1/kv/k/a?siblings", "", nil, 200, `"siblings":[{"value":"b2xkZXI=","version":"1-1","origin":"other","modified":"`},
		{"get after", "GET", "/v1/kv/k/a?after=5-1", "", nil, 200, "1"},
		{"get after the future", "GET", "/v1/kv/k/a?after=5-ff&timeout=20ms", "", nil, 503, `"code":"not_caught_up"`},
		{"get after nonsense", "GET", "/v1/kv/k/a?after=zz", "", nil, 400, `"code":"bad_request"`},
		{"get local", "GET", "/v1/kv/k/a?consistency=local", "", nil, 200, "1"},
		{"get linearizable", "GET", "/v1/kv/k/a?consistency=linearizable", "", nil, 412, `"code":"needs_strong"`},
		{"get consistent somehow", "GET", "/v1/kv/k/a?consistency=strong", "", nil, 400, `local or linearizable`},
		{"get unknown parameter", "GET", "/v1/kv/k/a?ttl=1s", "", nil, 400, `unknown parameter`},
		{"get bad escape", "GET", "/v1/kv/k%zz/a", "", nil, 400, ``},

		{"delete", "DELETE", "/v1/kv/k/a", "", nil, 200, `{"deleted":true,"version":"5-7","token":"5-7"}`},
		{"delete absent", "DELETE", "/v1/kv/k/none?durable=1", "", nil, 200, `{"deleted":false,"version":"","token":""}`},
		{"delete acks", "DELETE", "/v1/kv/k/acked?acks=all", "", nil, 200, `"deleted"`},
		{"post on a key", "POST", "/v1/kv/k/a", "", nil, 405, `allowed here: GET, HEAD, PUT, DELETE`},

		{"keys", "GET", "/v1/keys/k", "", nil, 200, `{"key":"<&>","version":"5-6"`},
		{"keys with values", "GET", "/v1/keys/k?values=true&prefix=%3C", "", nil, 200, `{"key":"<&>","value":"PCY+","version":"5-6"`},
		{"keys bad limit", "GET", "/v1/keys/k?limit=-1", "", nil, 400, `limit`},
		{"keys of no keyspace", "GET", "/v1/keys/", "", nil, 400, `names no keyspace`},
		{"keys of a path", "GET", "/v1/keys/k/dir", "", nil, 400, `names no keyspace`},

		{"watch bad cursor", "GET", "/v1/watch/k?from=zz", "", nil, 400, `"code":"bad_request"`},
		{"watch unknown parameter", "GET", "/v1/watch/k?form=1", "", nil, 400, `unknown parameter`},

		{"digest", "GET", "/v1/digest/k", "", nil, 200, `{"keyspace":"k","digest":"6","clock":"cd","entries":6}`},
		{"keyspaces", "GET", "/v1/keyspaces", "", nil, 200, `{"keyspaces":[{"name":"k","mode":"eventual","members":["memory"],"keys":6,"cells":6,"bytes":0,"digest":"ab"}]}`},
		{"keyspace", "GET", "/v1/keyspaces/k", "", nil, 200, `{"name":"k","mode":"eventual"`},
		{"create keyspace", "POST", "/v1/keyspaces/k", "", nil, 400, `not available yet`},
		{"create strong keyspace", "POST", "/v1/keyspaces/k", `{"mode":"strong"}`, nil, 412, `"code":"needs_strong"`},
		{"members", "GET", "/v1/members", "", nil, 200, `{"members":[{"name":"memory","addr":"127.0.0.1:7950","api_addr":"127.0.0.1:7951","status":"alive","zone":"z1","roles":["test"],"inc":"5","rtt_ms":1.5}]}`},
		{"status", "GET", "/v1/status", "", nil, 200, `"uptime_seconds":60,"ready":true,"not_ready":[],"members":{"alive":1},"links":[{"peer":"other"`},
		{"leave by get", "GET", "/v1/leave", "", nil, 405, `allowed here: POST`},
		{"leave", "POST", "/v1/leave", "", nil, 200, `{"left":true}`},
		{"lock", "GET", "/v1/lock/k/a", "", nil, 412, `"code":"needs_strong"`},
		{"no such path", "GET", "/v1/nothing", "", nil, 404, `no such path`},
		{"no such path", "GET", "/", "", nil, 404, `no such path`},
		{"members of", "GET", "/v1/members/x", "", nil, 404, `no such path`},
		{"native without upgrade", "GET", "/v1/native", "", nil, 426, `meshkv/1`},
		{"live", "GET", "/livez", "", nil, 200, "ok\n"},
		{"ready", "GET", "/readyz?verbose", "", nil, 200, "ok\n"},
		{"metrics", "GET", "/metrics", "", nil, 200, `meshkv_api_requests_total{code="ok",op="put",transport="http"} 0`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := memory.New(5)
			fill(t, b)
			_, addr := start(t, b, Options{})
			if strings.Contains(tt.target, "%zz") && !strings.Contains(tt.target, "?") {
				// The HTTP server itself refuses such a path.
				return
			}
			resp, body := exchange(t, addr, tt.method, tt.target, tt.body, tt.header...)
			if resp.StatusCode != tt.status || !strings.Contains(body, tt.want) {
				t.Errorf("got %d %s, want %d %s", resp.StatusCode, body, tt.status, tt.want)
			}
			if tt.status >= 400 {
				var e errorJSON
				if err := json.Unmarshal([]byte(body), &e); err != nil || e.Error.Code == "" || e.Error.Message == "" {
					t.Errorf("error body %q: %v", body, err)
				}
			}
			if tt.name == "leave" && !b.Left() {
				t.Error("the backend did not leave")
			}
		})
	}
}

// Nothing but a put or a watch makes a keyspace: a reader that asks for names
// that nobody uses does not use up the bound of the cluster.
func TestReadsMakeNoKeyspace(t *testing.T) {
	const zeros = "000000000000000000000000"
	for _, tt := range []struct {
		name, method, target string
		status               int
		want                 string
	}{
		{"get", "GET", "/v1/kv/none/a", 404, `"code":"not_found"`},
		{"get of no key", "GET", "/v1/kv/none/" + strings.Repeat("k", 1025), 400, `1025`},
		{"get linearizable", "GET", "/v1/kv/none/a?consistency=linearizable", 412, `"code":"needs_strong"`},
		{"get after", "GET", "/v1/kv/none/a?after=5-1&timeout=20ms", 503, `"code":"not_caught_up"`},
		{"get after nonsense", "GET", "/v1/kv/none/a?after=zz", 400, `"code":"bad_request"`},
		{"delete", "DELETE", "/v1/kv/none/a", 200, `{"deleted":false,"version":"","token":""}`},
		{"delete of no key", "DELETE", "/v1/kv/none/" + strings.Repeat("k", 1025), 400, `1025`},
		{"keys", "GET", "/v1/keys/none", 200, ""},
		{"digest", "GET", "/v1/digest/none", 200, `{"keyspace":"none","digest":"` + zeros + `","clock":"` + zeros + `","entries":0}`},
		{"keyspace", "GET", "/v1/keyspaces/none", 404, `no keyspace none`},
		{"get in no keyspace name", "GET", "/v1/kv/UPPER/a", 400, `[a-z0-9]`},
		{"delete in no keyspace name", "DELETE", "/v1/kv/UPPER/a", 400, `[a-z0-9]`},
		{"keys of no keyspace name", "GET", "/v1/keys/UPPER", 400, `[a-z0-9]`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := memory.New(5)
			_, addr := start(t, b, Options{})
			resp, body := exchange(t, addr, tt.method, tt.target, "")
			if resp.StatusCode != tt.status || !strings.Contains(body, tt.want) || tt.name == "keys" && body != "" {
				t.Errorf("got %d %s, want %d %s", resp.StatusCode, body, tt.status, tt.want)
			}
			wantNoKeyspace(t, b)
		})
	}
}

func wantNoKeyspace(t *testing.T, b *memory.Cluster) {
	t.Helper()
	if list, err := b.Keyspaces(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("Keyspaces: got %+v, %v; want none", list, err)
	}
}

func TestGetHeaders(t *testing.T) {
	b := memory.New(5)
	fill(t, b)
	_, addr := start(t, b, Options{})
	resp, _ := exchange(t, addr, "GET", "/v1/kv/k/a", "")
	for name, want := range map[string]string{
		"Meshkv-Version": "5-1", "Meshkv-Origin": "memory", "Meshkv-Token": "5-1",
		"Content-Type": "application/octet-stream", "Content-Length": "1",
	} {
		if got := resp.Header.Get(name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}

// A cutWriter is a response whose connection has failed.
type cutWriter struct {
	header http.Header
	status []int
}

func (w *cutWriter) Header() http.Header       { return w.header }
func (w *cutWriter) WriteHeader(status int)    { w.status = append(w.status, status) }
func (w *cutWriter) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

// An answer that cannot be written is not followed by an error's.
func TestFailedConnectionIsAnsweredOnce(t *testing.T) {
	b := memory.New(5)
	fill(t, b)
	s := NewServer(b, Options{})
	for _, path := range []string{"/v1/kv/k/a", "/v1/kv/k/a?siblings", "/v1/keyspaces", "/v1/digest/k"} {
		w := &cutWriter{header: make(http.Header)}
		s.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", path, nil))
		if len(w.status) != 0 {
			t.Errorf("%s: got a second header %v", path, w.status)
		}
	}
}

// HEAD has the header of GET, is counted as answered, and leaves the connection
// in order for the next request.
func TestHead(t *testing.T) {
	b := memory.New(5)
	fill(t, b)
	reg := prometheus.NewRegistry()
	_, addr := start(t, b, Options{Registry: reg})
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(10 * time.Second))
	r := bufio.NewReader(nc)
	request := func(method, path, accept string) *http.Response {
		t.Helper()
		fmt.Fprintf(nc, "%s %s HTTP/1.1\r\nHost: x\r\nAccept: %s\r\n\r\n", method, path, accept)
		resp, err := http.ReadResponse(r, &http.Request{Method: method})
		if err != nil {
			t.Fatalf("%s %s: %v", method, path, err)
		}
		io.Copy(io.Discard, resp.Body)
		resp.Header.Del("Date")
		return resp
	}
	for _, accept := range []string{"*/*", "application/json"} {
		for _, path := range []string{"/v1/kv/k/a", "/v1/kv/k/empty", "/v1/kv/k/none"} {
			get, head := request("GET", path, accept), request("HEAD", path, accept)
			if head.StatusCode != get.StatusCode || get.StatusCode == 200 && fmt.Sprint(head.Header) != fmt.Sprint(get.Header) {
				t.Errorf("HEAD %s as %s: got %d %v, want %d %v", path, accept, head.StatusCode, head.Header, get.StatusCode, get.Header)
			}
		}
	}
	if got := counter(t, reg, "meshkv_api_requests_total", "code", "internal"); got != 0 {
		t.Errorf("internal faults counted: got %v, want 0", got)
	}
}

func TestErrorStatuses(t *testing.T) {
	want := map[string]int{
		"not_found": 404, "bad_request": 400, "too_large": 413, "conflict": 409, "needs_strong": 412, "wrong_type": 412,
		"denied": 403, "overloaded": 429, "not_caught_up": 503, "joining": 503, "draining": 503, "no_quorum": 503,
		"session_lost": 409, "not_held": 409, "exhausted": 409, "frozen": 409, "rights": 409, "compacted": 410, "future_revision": 400, "full": 507, "needs_eventual": 412,
		"unavailable": 503, "write_concern": 503, "timeout": 504, "unknown_outcome": 504, "internal": 500, "canceled": 499,
	}
	for _, f := range failures[1:] {
		err := f.err
		if err == nil {
			err = fmt.Errorf("something else")
		}
		s := NewServer(failing{memory.New(1), fmt.Errorf("why: %w", err)}, Options{})
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/v1/members", nil))
		var e errorJSON
		if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil || w.Code != want[f.code] || e.Error.Code != f.code {
			t.Errorf("%v: got %d %s", f.err, w.Code, w.Body)
		}
	}
}

func TestKeysPages(t *testing.T) {
	b := memory.New(1)
	k, _ := b.Keyspace(t.Context(), "k")
	for i := range 40 {
		if _, err := k.Put(t.Context(), fmt.Sprintf("%03d", i), make([]byte, 20<<10), nil); err != nil {
			t.Fatal(err)
		}
	}
	_, addr := start(t, b, Options{})
	for target, want := range map[string]int{
		"/v1/keys/k?values=1": 40, "/v1/keys/k?values=1&limit=30": 30, "/v1/keys/k?values=1&after=009&limit=30": 30,
		"/v1/keys/k?after=029": 10, "/v1/keys/k?prefix=00": 10, "/v1/keys/k?prefix=zz": 0,
	} {
		resp, body := exchange(t, addr, "GET", target, "")
		lines := strings.Split(strings.TrimSuffix(body, "\n"), "\n")
		if body == "" {
			lines = nil
		}
		if len(lines) != want || resp.Header.Get("Content-Type") != "application/x-ndjson" {
			t.Errorf("%s: got %d lines of %s, want %d", target, len(lines), resp.Header.Get("Content-Type"), want)
		}
		last := ""
		for _, line := range lines {
			var e struct{ Key string }
			if err := json.Unmarshal([]byte(line), &e); err != nil || e.Key <= last {
				t.Errorf("%s: line %.60s after key %q: %v", target, line, last, err)
			}
			last = e.Key
		}
	}
}

func TestTimeouts(t *testing.T) {
	b := memory.New(1)
	_, addr := start(t, b, Options{})
	unblock := b.Block()
	defer unblock()
	resp, body := exchange(t, addr, "PUT", "/v1/kv/k/a?timeout=20ms", "v")
	if resp.StatusCode != 504 || !strings.Contains(body, `"unknown_outcome"`) {
		t.Errorf("write: got %d %s", resp.StatusCode, body)
	}
	resp, body = exchange(t, addr, "GET", "/v1/watch/k?timeout=50ms", "")
	if resp.StatusCode != 200 || !strings.HasSuffix(body, `{"error":{"code":"timeout","message":"context deadline exceeded"}}`+"\n") {
		t.Errorf("watch: got %d %s", resp.StatusCode, body)
	}
}

// stream opens a watch and returns its lines.
func stream(t *testing.T, addr, target string, header ...string) (*http.Response, *bufio.Scanner) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+addr+target, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp, bufio.NewScanner(resp.Body)
}

func wantLine(t *testing.T, lines *bufio.Scanner, want string) {
	t.Helper()
	if !lines.Scan() {
		t.Fatalf("the stream ended: %v; want %s", lines.Err(), want)
	}
	if !strings.Contains(lines.Text(), want) {
		t.Fatalf("got %s, want %s", lines.Text(), want)
	}
}

func TestHTTPWatch(t *testing.T) {
	b := memory.New(5)
	k, _ := b.Keyspace(t.Context(), "k")
	put := func(key, value string) {
		if _, err := k.Put(t.Context(), key, []byte(value), nil); err != nil {
			t.Fatal(err)
		}
	}
	put("x", "")
	_, addr := start(t, b, Options{Heartbeat: 50 * time.Millisecond})
	resp, lines := stream(t, addr, "/v1/watch/k")
	if got := resp.Header.Get("Content-Type"); got != "application/x-ndjson" {
		t.Errorf("content type %s", got)
	}
	wantLine(t, lines, `{"type":"put","entry":{"key":"x","value":"","version":"5-1"`)
	wantLine(t, lines, `{"type":"synced","cursor":"5-1"}`)
	wantLine(t, lines, `{"type":"heartbeat","cursor":"5-1"}`)
	put("\xff", "1")
	for lines.Scan() && strings.Contains(lines.Text(), "heartbeat") {
	}
	if got := lines.Text(); !strings.HasPrefix(got, `{"type":"put","entry":{"key_b64":"/w==","value":"MQ==",`) || !strings.HasSuffix(got, `"cursor":"5-2"}`) {
		t.Errorf("got %s", got)
	}
	if _, err := k.Delete(t.Context(), "x", nil); err != nil {
		t.Fatal(err)
	}
	for lines.Scan() && strings.Contains(lines.Text(), "heartbeat") {
	}
	if got := lines.Text(); !strings.HasPrefix(got, `{"type":"delete","entry":{"key":"x"},"prev":{"key":"x","value":`) || !strings.HasSuffix(got, `"reason":"deleted","cursor":"5-3"}`) {
		t.Errorf("got %s", got)
	}

	_, resumed := stream(t, addr, "/v1/watch/k?from=5-2")
	wantLine(t, resumed, `{"type":"delete","entry":{"key":"x"}`)
	_, strange := stream(t, addr, "/v1/watch/k?from=4-2")
	wantLine(t, strange, `{"type":"resync"}`)
	_, updates := stream(t, addr, "/v1/watch/k?updates-only=true")
	wantLine(t, updates, `{"type":"synced","cursor":"5-3"}`)

	sse, lines := stream(t, addr, "/v1/watch/k?prefix=%ff", "Accept", "text/event-stream")
	if got := sse.Header.Get("Content-Type"); got != "text/event-stream" {
		t.Errorf("content type %s", got)
	}
	wantLine(t, lines, "event: put")
	wantLine(t, lines, `data: {"type":"put"`)
	wantLine(t, lines, "")
	wantLine(t, lines, "id: 5-3")
	wantLine(t, lines, "event: synced")
	_, again := stream(t, addr, "/v1/watch/k", "Accept", "text/event-stream", "Last-Event-ID", "5-2")
	wantLine(t, again, "id: 5-3")
	wantLine(t, again, "event: delete")
}

func TestHTTPWatchBounds(t *testing.T) {
	reg := prometheus.NewRegistry()
	s, addr := start(t, memory.New(1), Options{Registry: reg, MaxWatches: 1})
	first, lines := stream(t, addr, "/v1/watch/k")
	wantLine(t, lines, "synced")
	resp, body := exchange(t, addr, "GET", "/v1/watch/k", "")
	if resp.StatusCode != 429 || !strings.Contains(body, `"overloaded"`) {
		t.Errorf("second watch: got %d %s", resp.StatusCode, body)
	}
	if got := counter(t, reg, "meshkv_api_watches", "transport", "http"); got != 1 {
		t.Errorf("watches: got %v", got)
	}
	first.Body.Close()
	for deadline := time.Now().Add(10 * time.Second); s.watches.Load() != 0; {
		if time.Now().After(deadline) {
			t.Fatal("the watch of a client that vanished is still there")
		}
		exchange(t, addr, "GET", "/livez", "")
	}
}

func TestHTTPBytesInFlight(t *testing.T) {
	b := memory.New(1)
	s, addr := start(t, b, Options{MaxInflightBytes: 1000})
	if resp, body := exchange(t, addr, "PUT", "/v1/kv/k/a", strings.Repeat("x", 1001)); resp.StatusCode != 429 {
		t.Errorf("got %d %s", resp.StatusCode, body)
	}
	if resp, body := exchange(t, addr, "PUT", "/v1/kv/k/a", strings.Repeat("x", 1000)); resp.StatusCode != 200 {
		t.Errorf("got %d %s", resp.StatusCode, body)
	}
	if got := s.inflightBytes.Load(); got != 0 {
		t.Errorf("bytes in flight left: %d", got)
	}
}

func TestHTTPShutdown(t *testing.T) {
	b := memory.New(1)
	s, addr := start(t, b, Options{})
	_, lines := stream(t, addr, "/v1/watch/k")
	wantLine(t, lines, "synced")
	unblock := b.Block()
	answered := make(chan string)
	go func() {
		_, body := exchange(t, addr, "PUT", "/v1/kv/k/a", "v")
		answered <- body
	}()
	<-b.Waiting()
	done := make(chan error, 1)
	go func() { done <- s.Shutdown(context.WithoutCancel(t.Context())) }()
	wantLine(t, lines, `{"error":{"code":"draining"`)
	if lines.Scan() {
		t.Errorf("after the end: %s", lines.Text())
	}
	// The listener is closed by now; a connection that is still open is refused.
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/v1/members", nil))
	if w.Code != 503 || !strings.Contains(w.Body.String(), `"draining"`) {
		t.Errorf("a call while draining: got %d %s", w.Code, w.Body)
	}
	w = httptest.NewRecorder()
	s.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/readyz?verbose", nil))
	if w.Code != 503 || !strings.Contains(w.Body.String(), "draining") {
		t.Errorf("readiness while draining: got %d %s", w.Code, w.Body)
	}
	unblock()
	if body := <-answered; !strings.Contains(body, `"version"`) {
		t.Errorf("the request in flight: got %s", body)
	}
	if err := <-done; err != nil {
		t.Errorf("Shutdown: %v", err)
	}
}

func TestLeaveEndsWithTheNode(t *testing.T) {
	b := &leaving{Cluster: memory.New(1)}
	s, addr := start(t, b, Options{})
	b.leave = func() error { return s.Shutdown(context.Background()) }
	c := dial(t, addr, nil)
	if err := c.Leave(t.Context()); err != nil {
		t.Errorf("native: %v", err)
	}
	s, addr = start(t, b, Options{})
	b.leave = func() error { return s.Shutdown(context.Background()) }
	if resp, body := exchange(t, addr, "POST", "/v1/leave", ""); resp.StatusCode != 200 {
		t.Errorf("http: got %d %s", resp.StatusCode, body)
	}
}

// leaving is a backend whose Leave does what a node's does: it stops serving.
type leaving struct {
	*memory.Cluster
	leave func() error
}

func (l *leaving) Leave(context.Context) error { return l.leave() }

func TestNotReady(t *testing.T) {
	b := memory.New(1)
	b.SetNotReady("first synchronisation with host-2")
	_, addr := start(t, b, Options{})
	if resp, body := exchange(t, addr, "GET", "/readyz", ""); resp.StatusCode != 503 || body != "not ready\n" {
		t.Errorf("got %d %s", resp.StatusCode, body)
	}
	if resp, body := exchange(t, addr, "GET", "/readyz?verbose", ""); resp.StatusCode != 503 || body != "not ready: first synchronisation with host-2\n" {
		t.Errorf("got %d %s", resp.StatusCode, body)
	}
	b.SetWarnings("the clock is wrong")
	b.SetNotReady()
	if resp, body := exchange(t, addr, "GET", "/readyz?verbose", ""); resp.StatusCode != 200 || body != "ok\nwarning: the clock is wrong\n" {
		t.Errorf("got %d %s", resp.StatusCode, body)
	}
	if resp, body := exchange(t, addr, "GET", "/readyz", ""); resp.StatusCode != 200 || body != "ok\n" {
		t.Errorf("got %d %s", resp.StatusCode, body)
	}
	if resp, body := exchange(t, addr, "GET", "/livez", ""); resp.StatusCode != 200 {
		t.Errorf("got %d %s", resp.StatusCode, body)
	}
}

var _ client.Cluster = (*leaving)(nil)
