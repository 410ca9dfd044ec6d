package main

import (
	"strings"
	"testing"

	"github.com/meshkv/meshkv/client"
)

func TestParseAddress(t *testing.T) {
	long := strings.Repeat("k", maxKeyBytes)
	for _, c := range []struct {
		name, arg, keyspace, key string
		ok                       bool
	}{
		{"plain", "nodes/host-1", "nodes", "host-1", true},
		{"slashes belong to the key", "a/b//c/", "a", "b//c/", true},
		{"key begins with a slash", "a//b", "a", "/b", true},
		{"any bytes", "a/\xff\x01 ", "a", "\xff\x01 ", true},
		{"longest key", "a/" + long, "a", long, true},
		{"key too long", "a/" + long + "k", "", "", false},
		{"no key", "a/", "", "", false},
		{"no slash", "a", "", "", false},
		{"no keyspace", "/a", "", "", false},
		{"empty", "", "", "", false},
		{"capital", "A/b", "", "", false},
		{"system", "_members/b", "_members", "b", true},
		{"not of the system", "_x/b", "", "", false},
		{"longest keyspace", strings.Repeat("a", 63) + "/b", strings.Repeat("a", 63), "b", true},
		{"keyspace too long", strings.Repeat("a", 64) + "/b", "", "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			keyspace, key, err := parseAddress(c.arg)
			if keyspace != c.keyspace || key != c.key || (err == nil) != c.ok {
				t.Errorf("got %q, %q, %v; want %q, %q, ok %v", keyspace, key, err, c.keyspace, c.key, c.ok)
			}
			if err != nil && exitCode(t.Context(), err) != codeUsage {
				t.Errorf("code %d, want %d", exitCode(t.Context(), err), codeUsage)
			}
		})
	}
}

func TestAPIHost(t *testing.T) {
	for _, c := range []struct{ addr, host string }{
		{"http://127.0.0.1:7951", "127.0.0.1:7951"},
		{"http://127.0.0.1:7951/", "127.0.0.1:7951"},
		{"127.0.0.1:7951", "127.0.0.1:7951"},
		{"[::1]:7951", "[::1]:7951"},
		{"http://[::1]:7951", "[::1]:7951"},
		{"host-1:7951", "host-1:7951"},
		{"https://127.0.0.1:7951", ""},
		{"http://127.0.0.1", ""},
		{"http://127.0.0.1:7951/v1", ""},
		{"127.0.0.1", ""},
		{"", ""},
	} {
		host, err := apiHost(c.addr)
		if host != c.host || (err == nil) != (c.host != "") {
			t.Errorf("apiHost(%q): got %q, %v; want %q", c.addr, host, err, c.host)
		}
	}
}

func TestMemberAPI(t *testing.T) {
	for _, c := range []struct{ api, mesh, want string }{
		{"10.0.0.1:7951", "10.0.0.1:7950", "10.0.0.1:7951"},
		{"host-1:7951", "10.0.0.1:7950", "host-1:7951"},
		{"0.0.0.0:7951", "10.0.0.1:7950", "10.0.0.1:7951"},
		{"[::]:7951", "[fd00::1]:7950", "[fd00::1]:7951"},
		{":7951", "10.0.0.1:7950", "10.0.0.1:7951"},
		{"127.0.0.1:0", "127.0.0.1:7950", ""},
		{"off", "10.0.0.1:7950", ""},
		{"", "10.0.0.1:7950", ""},
	} {
		if got := memberAPI(client.Member{APIAddr: c.api, Addr: c.mesh}); got != c.want {
			t.Errorf("memberAPI(%q, %q): got %q, want %q", c.api, c.mesh, got, c.want)
		}
	}
}
