//go:build linux

package netlab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

const namespaceDir = "/run/netns"

// ErrUnsupported: this machine or user cannot make these networks. The text
// says what is missing.
var ErrUnsupported = errors.New("network namespaces are not available")

// A Namespace is a named network namespace, the kind that `ip netns` shows.
type Namespace struct{ Name string }

// Create makes a new namespace with its loopback up and IPv6 off (there is
// nothing to route it to, and its neighbour discovery would be noise).
// errors.Is(err, os.ErrExist) if there is one of that name.
func (n Namespace) Create() error {
	err := onOwnThread(func() error {
		h, err := netns.NewNamed(n.Name)
		if err != nil {
			return err
		}
		defer h.Close()
		for _, which := range []string{"all", "default"} {
			err := os.WriteFile("/proc/sys/net/ipv6/conf/"+which+"/disable_ipv6", []byte("1"), 0)
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(lo)
	})
	if err != nil {
		return fmt.Errorf("create namespace %s: %w", n.Name, err)
	}
	return nil
}

// Delete removes the namespace's name; the kernel destroys the namespace and
// its links when the last process in it is gone. It is no error if there is
// none.
func (n Namespace) Delete() error {
	path := filepath.Join(namespaceDir, n.Name)
	// EINVAL: a file without a mount, left by a creation that was cut short.
	err := unix.Unmount(path, unix.MNT_DETACH)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount namespace %s: %w", n.Name, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("delete namespace %s: %w", n.Name, err)
	}
	return nil
}

// Exists reports whether there is a namespace of that name.
func (n Namespace) Exists() bool {
	_, err := os.Stat(filepath.Join(namespaceDir, n.Name))
	return err == nil
}

// Namespaces lists the namespaces whose name begins with prefix.
func Namespaces(prefix string) ([]Namespace, error) {
	files, err := os.ReadDir(namespaceDir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list namespaces: %w", err)
	}
	var found []Namespace
	for _, f := range files {
		if strings.HasPrefix(f.Name(), prefix) {
			found = append(found, Namespace{f.Name()})
		}
	}
	return found, nil
}

// Do runs f on a thread that is inside the namespace. f must not start
// goroutines that rely on that; a process or socket that it creates stays in
// the namespace.
func (n Namespace) Do(f func() error) error {
	return onOwnThread(func() error {
		h, err := netns.GetFromName(n.Name)
		if err != nil {
			return fmt.Errorf("open namespace %s: %w", n.Name, err)
		}
		defer h.Close()
		if err := netns.Set(h); err != nil {
			return fmt.Errorf("enter namespace %s: %w", n.Name, err)
		}
		return f()
	})
}

// Handle opens a netlink connection into the namespace. The caller closes it.
func (n Namespace) Handle() (*netlink.Handle, error) {
	h, err := netns.GetFromName(n.Name)
	if err != nil {
		return nil, fmt.Errorf("open namespace %s: %w", n.Name, err)
	}
	defer h.Close()
	nl, err := netlink.NewHandleAt(h, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("netlink in namespace %s: %w", n.Name, err)
	}
	return nl, nil
}

// DialContext connects from inside the namespace; it fits http.Transport. The
// address must be numeric.
func (n Namespace) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	var conn net.Conn
	err := n.Do(func() error {
		var err error
		var d net.Dialer
		conn, err = d.DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// onOwnThread runs f on a thread of its own, which ends with it: whatever f
// does to the thread's namespace is never seen by another goroutine.
func onOwnThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // not unlocked: the runtime ends the thread with the goroutine
		done <- f()
	}()
	return <-done
}

// Probe reports why namespaces cannot be used here (ErrUnsupported), by
// making one. extra runs inside the throw-away namespace and may be nil.
func Probe(extra func() error) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("%w: this needs root", ErrUnsupported)
	}
	err := onOwnThread(func() error {
		// Anonymous: it is gone with the thread.
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("new network namespace: %w", err)
		}
		if err := addBridge("probe"); err != nil {
			return fmt.Errorf("bridge: %w", err)
		}
		if extra == nil {
			return nil
		}
		return extra()
	})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	return nil
}

func addBridge(name string) error {
	return netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}})
}
