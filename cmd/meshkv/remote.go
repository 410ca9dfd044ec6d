package main

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/meshkv/meshkv/client"
)

// A remoteNode is a connection to a node.
type remoteNode interface {
	client.Cluster
	client.KeyspaceOperator
	Close() error
}

// withNode runs fn with a connection to the node of --addr, within --timeout.
func (a *app) withNode(ctx context.Context, fn func(ctx context.Context, c remoteNode) error) error {
	ctx, cancel := a.deadline(ctx)
	defer cancel()
	c, err := a.connect(ctx, a.addr)
	if err != nil {
		return err
	}
	defer c.Close()
	return fn(ctx, c)
}

// withKeyspace is withNode for a command that uses one keyspace.
func (a *app) withKeyspace(ctx context.Context, name string, fn func(ctx context.Context, ks client.Keyspace) error) error {
	return a.withNode(ctx, func(ctx context.Context, c remoteNode) error {
		ks, err := c.Keyspace(ctx, name)
		if err != nil {
			return fmt.Errorf("open keyspace %s: %w", name, err)
		}
		return fn(ctx, ks)
	})
}

// withStrong is withNode for a command that needs a strong keyspace.
func (a *app) withStrong(ctx context.Context, name string, fn func(ctx context.Context, s client.Strong) error) error {
	return a.withNode(ctx, func(ctx context.Context, c remoteNode) error {
		s, err := c.Strong(ctx, name)
		if err != nil {
			return fmt.Errorf("open keyspace %s: %w", name, err)
		}
		return fn(ctx, s)
	})
}

func (a *app) deadline(ctx context.Context) (context.Context, context.CancelFunc) {
	if a.timeout <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, a.timeout)
}

const (
	// never is the time of a call under --timeout 0.
	never = 100 * 365 * 24 * time.Hour
	// watchPatience is how long a watch waits for its node to come back.
	watchPatience = 30 * time.Second
)

// connect opens the API at addr, which is a URL or host:port.
func (a *app) connect(ctx context.Context, addr string) (remoteNode, error) {
	host, err := apiHost(addr)
	if err != nil {
		return nil, err
	}
	return a.dial(ctx, host, a.dialOptions())
}

// dialNode connects to the API at host.
func dialNode(ctx context.Context, host string, o *client.DialOptions) (remoteNode, error) {
	c, err := client.Dial(ctx, host, o)
	if err != nil {
		return nil, err
	}
	return c, nil
}

func (a *app) dialOptions() *client.DialOptions {
	o := client.DialOptions{Timeout: a.timeout, GiveUpAfter: a.watchPatience}
	if o.Timeout <= 0 {
		o.Timeout = never // zero would be the client's default
	}
	return &o
}

// apiHost is the host:port of an API address.
func apiHost(addr string) (string, error) {
	host := addr
	if strings.Contains(addr, "://") {
		u, err := url.Parse(addr)
		if err != nil || u.Scheme != "http" || strings.Trim(u.Path, "/") != "" {
			return "", usagef("--addr %q is no API address: give http://HOST:PORT", addr)
		}
		host = u.Host
	}
	if _, port, err := net.SplitHostPort(host); err != nil || port == "" {
		return "", usagef("--addr %q is no API address: give http://HOST:PORT", addr)
	}
	return host, nil
}
