//go:build linux

package lab

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/meshkv/meshkv/client"
	"github.com/meshkv/meshkv/examples/overlay"
)

// A record that nobody can use, whatever its key and its size, hides none of the
// others.
func TestF11BadRecordsAreLeftOut(t *testing.T) {
	good, err := json.Marshal(map[string]any{"vtep": "192.0.2.1", "mac": "02:00:00:00:00:01", "vni": 42, "subnet": "10.0.1.0/24"})
	if err != nil {
		t.Fatal(err)
	}
	var list bytes.Buffer
	for _, e := range []client.Entry{
		{Key: "bad\xff", Value: good[:1]},
		{Key: "big", Value: bytes.Repeat([]byte{0xff}, 64<<10)},
		{Key: strings.Repeat("\x00", 1024), Value: nil},
		{Key: "h1", Value: good},
	} {
		if err := json.NewEncoder(&list).Encode(e); err != nil {
			t.Fatal(err)
		}
	}
	nodes, err := readRecords(&list, overlay.DecodeNode)
	if err != nil || len(nodes) != 1 || nodes[0].Name != "h1" {
		t.Errorf("got %+v, %v", nodes, err)
	}
	if _, err := readRecords(strings.NewReader(`{"error":{"code":"draining"}}`), overlay.DecodeNode); err == nil {
		t.Error("an error at the end of the list is no error")
	}
}
