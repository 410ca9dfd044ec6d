package api

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/node/api/internal/memory"
)

// A typeStep is one call in a row of them.
type typeStep struct {
	method, target, body string
	status               int
	want                 string // part of the answer
}

func TestTypesOverHTTP(t *testing.T) {
	tests := []struct {
		name  string
		steps []typeStep
	}{
		{"counter", []typeStep{
			{"GET", "/v1/counter/k/a", "", 404, `"code":"not_found"`},
			{"POST", "/v1/counter/k/a", `{"add":5}`, 200, `{"version":"5-1","token":"5-1"}`},
			{"POST", "/v1/counter/k/a?durable=false", `{"add":-7}`, 200, `"version":"5-2"`},
			{"GET", "/v1/counter/k/a?after=5-2", "", 200, `{"key":"a","type":"counter","value":-2,"version":"5-2","modified":"`},
			{"POST", "/v1/counter/k/a", `{"reset":true}`, 200, `"version":"5-3"`},
			{"GET", "/v1/counter/k/a", "", 200, `"value":0,`},
			{"POST", "/v1/counter/k/a", `{"reset":true,"add":1}`, 400, `the body is {\"add\":5} or`},
			{"POST", "/v1/counter/k/a", ``, 400, `the body is {\"add\":5} or`},
			{"POST", "/v1/counter/k/a", `{"inc":1}`, 400, `unknown field`},
			{"POST", "/v1/counter/k/a", `{"add":9223372036854775808}`, 400, `bad_request`},
			{"POST", "/v1/counter/k/a?ttl=1s", `{"add":1}`, 400, `unknown parameter`},
			{"POST", "/v1/counter/k/a?acks=some", `{"add":1}`, 400, `number of members`},
			{"PUT", "/v1/counter/k/a", `1`, 405, `allowed here: GET, POST`},
			{"POST", "/v1/counter/k/", `{"add":1}`, 400, `/v1/counter/KEYSPACE/KEY`},
			{"GET", "/v1/kv/k/a", "", 412, `"code":"wrong_type"`},
			{"PUT", "/v1/kv/k/a", "x", 412, `"code":"wrong_type"`},
			{"GET", "/v1/set/k/a", "", 412, `counter, not set`},
			{"POST", "/v1/set/k/a", `{"add":["x"]}`, 412, `"code":"wrong_type"`},
			{"GET", "/v1/keys/k?values=true", "", 200, `{"key":"a","type":"counter","version":"5-3","origin":"memory",`},
			{"DELETE", "/v1/kv/k/a", "", 200, `{"deleted":true`},
			{"POST", "/v1/set/k/a", `{"add":["x"]}`, 200, `"version"`},
		}},
		{"set", []typeStep{
			{"POST", "/v1/set/k/a%2Fb", `{"add":["x","y","z"],"add_b64":["/w=="],"remove":["x"]}`, 200, `"version":"5-1"`},
			{"GET", "/v1/set/k/a/b", "", 200, `{"key":"a/b","type":"set","value":["x","y","z"],"value_b64":["/w=="],"len":4,"version":"5-1"`},
			{"POST", "/v1/set/k/a/b", `{"remove":"x","remove_b64":["/w=="]}`, 200, `"version":"5-2"`},
			{"GET", "/v1/set/k/a/b?limit=1", "", 200, `"value":["y"],"len":2,"version":"5-2"`},
			{"GET", "/v1/set/k/a/b?limit=1", "", 200, `"next":"eQ"`},
			{"GET", "/v1/set/k/a/b?limit=1&after=eQ", "", 200, `"value":["z"],"len":2`},
			{"GET", "/v1/set/k/a/b?element=z", "", 200, `"value":["z"],`},
			{"GET", "/v1/set/k/a/b?element=zz", "", 200, `"value":[],`},
			{"GET", "/v1/set/k/a/b?after=@", "", 400, `a position as printed`},
			{"GET", "/v1/set/k/a/b?path=a", "", 400, `unknown parameter`},
			{"POST", "/v1/set/k/a/b", `{}`, 400, `the body is`},
			{"POST", "/v1/set/k/a/b", `{"add":[""]}`, 400, `1 to 1024 bytes`},
			{"POST", "/v1/set/k/a/b", "{\"add\":[\"\xff\"]}", 400, `add_b64`},
			{"POST", "/v1/set/k/a/b", `{"remove":["y","z"]}`, 200, `"version"`},
			{"GET", "/v1/set/k/a/b", "", 404, `"code":"not_found"`},
		}},
		{"set with lifetimes", []typeStep{
			{"POST", "/v1/set/k/a?ttl=1h&ephemeral", `{"add":["x"]}`, 200, `"version"`},
			{"POST", "/v1/set/k/a?ttl=-1h", `{"add":["x"]}`, 400, `positive duration`},
			{"GET ndjson", "/v1/set/k/a", "", 200, `"ephemeral":true,"position":"eA"}` + "\n"},
			{"GET ndjson", "/v1/set/k/a", "", 200, `{"path":["x"],"version":"5-1","origin":"memory","modified":"`},
		}},
		{"map", []typeStep{
			{"POST", "/v1/map/k/m", `{"put":{"a":"1","n":{"x":"2","deep":{"er":"3"}}},"fields":[{"path":["n","b"],"value_b64":"/w=="},{"path_b64":["/w=="],"value":"4"}]}`, 200, `"version":"5-1"`},
			{"GET", "/v1/map/k/m", "", 200, `"value":{"a":"1","n":{"deep":{"er":"3"},"x":"2"}},"fields":[{"path":["n","b"],"value_b64":"/w=="},{"path_b64":["/w=="],"value":"4"}],"len":5`},
			{"GET", "/v1/map/k/m?path=a", "", 200, `"value":{"a":"1"},"len":5`},
			{"GET", "/v1/map/k/m?path=" + url.QueryEscape(`["n","deep"]`), "", 200, `"value":{"n":{"deep":{"er":"3"}}},"len":5`},
			{"GET", "/v1/map/k/m?path=[", "", 400, `list of fields`},
			{"GET", "/v1/map/k/m?path=", "", 400, `1 to 255 bytes`},
			{"POST", "/v1/map/k/m", `{"put":{"a":{"b":"1"}}}`, 412, `"code":"wrong_type"`},
			{"POST", "/v1/map/k/m", `{"put":{"a":1}}`, 400, `text, or an object`},
			{"POST", "/v1/map/k/m", `{"put":{"a":null}}`, 400, `text, or an object`},
			{"POST", "/v1/map/k/m", `{"put":{"a":{}}}`, 400, `text, or an object`},
			{"POST", "/v1/map/k/m", `{"put":{"a":{"a":{"a":{"a":{"a":{"a":{"a":{"a":{"a":"9"}}}}}}}}}}`, 400, `1 to 8 fields`},
			{"POST", "/v1/map/k/m", `{"remove":["a",["n","deep"],"absent"],"remove_b64":[["/w=="]]}`, 200, `"version":"5-2"`},
			{"GET", "/v1/map/k/m", "", 200, `"value":{"n":{"x":"2"}},"fields":[{"path":["n","b"]`},
			{"POST", "/v1/map/k/m", `{"remove":[["n"]],"put":{"n":"a register"}}`, 200, `"version":"5-3"`},
			{"GET ndjson", "/v1/map/k/m", "", 200, `{"path":["n"],"value":"a register","version":"5-3"`},
		}},
		{"flag", []typeStep{
			{"POST", "/v1/flag/k/f", `{"enable":true}`, 200, `"version":"5-1"`},
			{"GET", "/v1/flag/k/f", "", 200, `"type":"flag","value":true,`},
			{"POST", "/v1/flag/k/f", `{"enable":false}`, 200, `"version":"5-2"`},
			{"GET", "/v1/flag/k/f", "", 200, `"value":false,`},
			{"POST", "/v1/flag/k/f", `{"enable":true,"inverse":true}`, 412, `flag, not inverse-flag`},
			{"POST", "/v1/flag/k/g", `{"enable":true,"inverse":true}`, 200, `"version"`},
			{"GET", "/v1/flag/k/g", "", 200, `"type":"inverse-flag","value":true,`},
			{"POST", "/v1/flag/k/g", `{}`, 400, `the body is`},
		}},
		{"log", []typeStep{
			{"POST", "/v1/log/k/l", `{"append":["1","2"]}`, 200, `"version":"5-1"`},
			{"POST", "/v1/log/k/l", `{"append_b64":"/w==","cap":2}`, 200, `"version":"5-2"`},
			{"GET", "/v1/log/k/l", "", 200, `"type":"log","value":[{"value":"2","origin":"memory","modified":"`},
			{"GET", "/v1/log/k/l", "", 200, `{"value_b64":"/w==","origin"`},
			{"POST", "/v1/log/k/l", `{"append":"1","append_b64":"/w=="}`, 400, `exclude each other`},
			{"POST", "/v1/log/k/l", `{"cap":5000}`, 400, `1 to 4096`},
			{"POST", "/v1/log/k/l", `{}`, 400, `the body is`},
		}},
		{"bounded", []typeStep{
			{"POST", "/v1/bounded/k/b", `{"add":1}`, 404, `"code":"not_found"`},
			{"POST", "/v1/bounded/k/b", `{"create":{"bound":-5,"value":10}}`, 200, `"version":"5-1"`},
			{"POST", "/v1/bounded/k/b", `{"create":{"bound":-5,"value":10}}`, 409, `"code":"conflict"`},
			{"POST", "/v1/bounded/k/b", `{"add":-12}`, 200, `"version":"5-2"`},
			{"GET", "/v1/bounded/k/b", "", 200, `"type":"bounded","value":-2,"bound":-5,"rights":3,`},
			{"POST", "/v1/bounded/k/b", `{"add":-4}`, 409, `"code":"rights"`},
			{"POST", "/v1/bounded/k/b", `{"transfer":{"to":"ab","n":2}}`, 200, `"version":"5-3"`},
			{"POST", "/v1/bounded/k/b", `{"transfer":{"to":"ab","n":2}}`, 409, `it has 1 and 2 are needed`},
			{"POST", "/v1/bounded/k/b", `{"add":1,"transfer":{"to":"ab","n":2}}`, 400, `the body is`},
		}},
		{"update", []typeStep{
			{"POST", "/v1/update/k", `{"changes":[{"verb":"counter-add","key":"c","n":1},{"verb":"set-add","key_b64":"/w==","path":["e"],"ttl":"1h"},{"verb":"put","key":"r","value":"1"}]}`, 200, `"version":"5-1"`},
			{"GET", "/v1/counter/k/c", "", 200, `"value":1,"version":"5-1"`},
			{"GET", "/v1/set/k/%ff", "", 200, `"key_b64":"/w==","type":"set","value":["e"]`},
			{"GET", "/v1/kv/k/r", "", 200, `1`},
			{"POST", "/v1/update/k", `{"changes":[{"verb":"counter-add","key":"c","n":1},{"verb":"set-add","key":"r","path":["e"]}]}`, 412, `"code":"wrong_type"`},
			{"GET", "/v1/counter/k/c", "", 200, `"value":1,"version":"5-1"`},
			{"POST", "/v1/update/k", `{"changes":[]}`, 400, `1 to 1024 changes`},
			{"POST", "/v1/update/k", `{"changes":[{"verb":"counter-add","key":"c","n":1},{"verb":"incr","key":"c"}]}`, 400, `change 2: bad request: there is no verb`},
			{"POST", "/v1/update/k", `{"changes":[{"verb":"counter-add","key":"c","path":["x"]}]}`, 400, `fewer fields`},
			{"GET", "/v1/update/k", "", 405, `allowed here: POST`},
			{"POST", "/v1/update", `{}`, 400, `names no keyspace`},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, addr := start(t, memory.New(5), Options{})
			for _, step := range tt.steps {
				method, lines := strings.CutSuffix(step.method, " ndjson")
				var header []string
				if lines {
					header = []string{"Accept", "application/x-ndjson"}
				}
				resp, body := exchange(t, addr, method, step.target, step.body, header...)
				if resp.StatusCode != step.status || !strings.Contains(body, step.want) {
					t.Errorf("%s %s %s: got %d %s, want %d %s", step.method, step.target, step.body, resp.StatusCode, body, step.status, step.want)
				}
			}
		})
	}
}

// Reading a type does not make a keyspace, nor does an update that cannot be carried out.
func TestTypesMakeNoKeyspace(t *testing.T) {
	b := memory.New(5)
	_, addr := start(t, b, Options{})
	for _, tt := range []typeStep{
		{"GET", "/v1/counter/none/a", "", 404, `"code":"not_found"`},
		{"GET", "/v1/set/none/a", "", 404, `"code":"not_found"`},
		{"GET", "/v1/set/none/" + strings.Repeat("k", 1025), "", 400, `1025`},
		{"GET", "/v1/counter/none/a?after=5-1&timeout=20ms", "", 503, `"code":"not_caught_up"`},
		{"GET", "/v1/map/none/a?seen=zz", "", 400, `"code":"bad_request"`},
		{"POST", "/v1/set/none/a", `{"add":[""]}`, 400, `"code":"bad_request"`},
	} {
		resp, body := exchange(t, addr, tt.method, tt.target, tt.body)
		if resp.StatusCode != tt.status || !strings.Contains(body, tt.want) {
			t.Errorf("%s: got %d %s, want %d %s", tt.target, resp.StatusCode, body, tt.status, tt.want)
		}
	}
	ks, err := dial(t, addr, nil).Keyspace(t.Context(), "none")
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range ks.Elements(t.Context(), "a", nil) {
		if failures[failureOf(err)].code != "not_found" {
			t.Errorf("Elements: got %v", err)
		}
	}
	wantNoKeyspace(t, b)
}

// The pages of a large set hold all of it, whatever the form.
func TestElementsOverHTTPByPages(t *testing.T) {
	b := memory.New(5)
	_, addr := start(t, b, Options{})
	ks, err := b.Keyspace(t.Context(), "k")
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for i := range 3000 {
		want = append(want, fmt.Sprintf("%05d%s", i, strings.Repeat("x", 300)))
	}
	for part := range slices.Chunk(want, 700) {
		if _, err := client.SetOf(ks, "s").Add(t.Context(), part...); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	target := "/v1/set/k/s"
	for pages := 0; ; pages++ {
		resp, body := exchange(t, addr, "GET", target, "")
		var page struct {
			Value []string `json:"value"`
			Next  string   `json:"next"`
		}
		if err := json.Unmarshal([]byte(body), &page); err != nil || resp.StatusCode != 200 || len(body) > 1<<20 {
			t.Fatalf("page %d: %d, %v, %d bytes", pages, resp.StatusCode, err, len(body))
		}
		got = append(got, page.Value...)
		if page.Next == "" {
			break
		}
		target = "/v1/set/k/s?after=" + page.Next
	}
	if !slices.Equal(got, want) {
		t.Errorf("pages: got %d elements, want %d in order", len(got), len(want))
	}
	_, body := exchange(t, addr, "GET", "/v1/set/k/s?limit=2999", "", "Accept", "application/x-ndjson")
	if n := strings.Count(body, "\n"); n != 2999 {
		t.Errorf("lines: got %d, want 2999", n)
	}
}
