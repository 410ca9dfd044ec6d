package main

import (
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/meshkv/meshkv/client"
)

func TestBarStaysTheLastLine(t *testing.T) {
	var out strings.Builder
	b := &bar{w: &out, terminal: true}
	fmt.Fprintln(b, "log 1")
	b.show("10 %")
	b.show("10 %")
	fmt.Fprintln(b, "log 2")
	b.show("20 %")
	b.show("")
	fmt.Fprintln(b, "log 3")
	want := "log 1\n" + eraseRow + "10 %" + eraseRow + "log 2\n10 %" + eraseRow + "20 %" + eraseRow + "log 3\n"
	if out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}

	out.Reset()
	pipe := newBar(&out)
	pipe.show("10 %")
	fmt.Fprintln(pipe, "log")
	if out.String() != "log\n" {
		t.Errorf("a stream that is no terminal got %q", out.String())
	}
}

func TestFillLine(t *testing.T) {
	filling := func(name, peer string, done, total int) client.KeyspaceStatus {
		return client.KeyspaceStatus{Name: name, Bootstrap: client.BootstrapStatus{Running: true, Peer: peer, Done: done, Total: total}}
	}
	for _, tt := range []struct {
		all  []client.KeyspaceStatus
		want string
	}{
		{[]client.KeyspaceStatus{{Name: "peers"}}, ""},
		{[]client.KeyspaceStatus{{Name: "peers"}, filling("overlay", "host-3", 50_000, 100_000)}, "overlay [############------------] 50,000 of 100,000 from host-3"},
		{[]client.KeyspaceStatus{filling("overlay", "", 0, 0)}, "overlay [------------------------] 0 of 0"},
		{[]client.KeyspaceStatus{filling("a", "x", 90, 10), filling("b", "y", 0, 10)}, "2 keyspaces [########################] 90 of 20"},
	} {
		if got := fillLine(client.Status{Keyspaces: tt.all}); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
	if n := utf8.RuneCountInString(cut(strings.Repeat("ä", 100))); n != 79 {
		t.Errorf("%d columns after the cut", n)
	}
}
