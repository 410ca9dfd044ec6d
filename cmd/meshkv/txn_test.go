package main

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestTxn(t *testing.T) {
	t.Parallel()
	n, s := aStrong(t)
	put(t, s, "a", "1")
	const swap = `{"compare":[{"key":"a","target":"value","op":"=","value":"1"}],
		"then":[{"put":{"key":"a","value":"2"}},{"put":{"key":"b","value_b64":"/w=="}}],
		"else":[{"get":{"key":"a"}},{"txn":{"then":[{"get":{"prefix":"b"}}]}}]}`

	if r := fakeRun(t, n, swap, "txn", "s"); r.code != 0 || r.stdout != "done, revision 3\n" || r.stderr != "" {
		t.Errorf("got %+v", r)
	}
	if r := fakeRun(t, n, swap, "txn", "s", "-o", "raw"); r.code != codeConflict || r.stdout != "a\t2\nb\t\\xff\n" || r.stderr != "meshkv: txn: the conditions did not hold: else was done\n" {
		t.Errorf("again: got %+v", r)
	}
	if r := fakeRun(t, n, swap, "txn", "s"); r.code != codeConflict || !strings.Contains(r.stdout, "revision 3\nKEY") || strings.Count(r.stdout, "\n") != 4 {
		t.Errorf("again, as a table: got %+v", r)
	}
	r := fakeRun(t, n, `{"then":[{"get":{"key":"a"}},{"delete":{"key":"a"}}]}`, "txn", "s", "-o", "json")
	var doc struct {
		Succeeded bool
		Version   string
		Results   []struct {
			Entries []struct {
				Key   string
				Value []byte
			}
			Deleted int
		}
	}
	if err := json.Unmarshal([]byte(r.stdout), &doc); err != nil || r.code != 0 || !doc.Succeeded || doc.Version != "4" || len(doc.Results) != 2 ||
		string(doc.Results[0].Entries[0].Value) != "2" || doc.Results[1].Deleted != 1 {
		t.Errorf("json: %v, %+v, %+v", err, r, doc)
	}
	if r := fakeRun(t, n, `{"compare":[{"key":"a","target":"mod","op":">","value":"1"}],"then":[]}`, "txn", "s", "-o", "json"); r.code != codeConflict || !strings.Contains(r.stderr, "nothing was done") {
		t.Errorf("no else: got %+v", r)
	}

	for in, want := range map[string]string{
		"":                                 "a transaction is",
		"{":                                "a transaction is",
		`{"if":[]}`:                        `"if"`,
		`{} {}`:                            "more than one value",
		`{"then":[{}]}`:                    "exactly one",
		`{"then":[{"put":{"value":"x"}}]}`: "1024 bytes",
		`{"compare":[{"key":"a","target":"size","op":"=","value":1}]}`:      "target is",
		`{"compare":[{"key":"a","target":"mod","op":"~","value":1}]}`:       "op is",
		`{"compare":[{"key":"a","target":"version","op":"=","value":"x"}]}`: "a number",
	} {
		if r := fakeRun(t, n, in, "txn", "s"); r.code != codeUsage || !strings.Contains(r.stderr, want) || strings.Count(r.stderr, "\n") != 1 {
			t.Errorf("%s: got %+v, want usage with %q", in, r, want)
		}
	}
	if r := fakeRun(t, n, strings.Repeat(" ", maxTxnInput+1), "txn", "s"); r.code != codeError || !strings.Contains(r.stderr, "exceeds") {
		t.Errorf("too large: got %+v", r)
	}
}
