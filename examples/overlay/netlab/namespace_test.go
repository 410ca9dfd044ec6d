//go:build linux

package netlab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"
)

// needNamespaces skips the test, loudly, where there can be no namespaces.
func needNamespaces(t *testing.T) {
	t.Helper()
	if err := Probe(nil); err != nil {
		t.Skipf("SKIPPED, NOTHING WAS TESTED: %v", err)
	}
}

// Two namespaces on a switch reach each other, a partition stops exactly what
// it should and counts it, and nothing is left behind.
func TestSwitch(t *testing.T) {
	needNamespaces(t)
	prefix := fmt.Sprintf("mkvnet%d-", os.Getpid())
	sw := Switch{Namespace{prefix + "switch"}}
	a, b := Namespace{prefix + "a"}, Namespace{prefix + "b"}
	t.Cleanup(func() {
		for _, n := range []Namespace{sw.Namespace, a, b} {
			if err := errors.Join(n.Delete(), n.Delete()); err != nil {
				t.Error(err)
			}
		}
		if left, err := Namespaces(prefix); err != nil || len(left) > 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
	})
	if err := sw.Create(); err != nil {
		t.Fatal(err)
	}
	for i, n := range []Namespace{a, b} {
		if err := n.Create(); err != nil {
			t.Fatal(err)
		}
		addr := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, 0, byte(i + 1)}), 24)
		if err := sw.Plug(Port{Name: string(rune('a' + i)), Inside: n, Link: "eth0", Addr: addr}); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Create(); !errors.Is(err, os.ErrExist) {
		t.Errorf("a second Create = %v, want ErrExist", err)
	}
	var l net.Listener
	if err := b.Do(func() (err error) { l, err = net.Listen("tcp", "10.1.0.2:80"); return err }); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, "hello")
			c.Close()
		}
	}()
	hear := func(wait time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), wait)
		defer cancel()
		c, err := a.DialContext(ctx, "tcp", "10.1.0.2:80")
		if err != nil {
			return err
		}
		defer c.Close()
		text, err := io.ReadAll(c)
		if err == nil && string(text) != "hello" {
			err = fmt.Errorf("heard %q", text)
		}
		return err
	}
	if err := hear(10 * time.Second); err != nil {
		t.Fatalf("before the partition: %v", err)
	}
	if err := sw.Heal(); err != nil {
		t.Errorf("healing nothing: %v", err)
	}
	for range 2 { // the second replaces the first
		if err := sw.Partition([]string{"a"}, []string{"b"}); err != nil {
			t.Fatal(err)
		}
	}
	if err := hear(200 * time.Millisecond); err == nil {
		t.Error("the partition lets packets through")
	}
	if d, ok, err := sw.Dropped(); err != nil || !ok || d.Packets == 0 {
		t.Errorf("Dropped = %+v, %v, %v, want packets", d, ok, err)
	}
	if err := sw.Heal(); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := sw.Dropped(); ok || err != nil {
		t.Errorf("a cut is left after Heal: %v, %v", ok, err)
	}
	if err := hear(10 * time.Second); err != nil {
		t.Errorf("after the partition: %v", err)
	}
	if err := Unplug(b, "eth0"); err != nil {
		t.Error(err)
	}
	if err := Unplug(b, "eth0"); err != nil {
		t.Errorf("a second Unplug: %v", err)
	}
}
