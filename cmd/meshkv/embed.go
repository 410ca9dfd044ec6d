package main

import (
	"context"
	"errors"
	"log/slog"

	"github.com/meshkv/meshkv/node"
)

// nodeConfig are the settings in the terms of package node.
func (s settings) nodeConfig(log *slog.Logger) node.Config {
	return node.Config{
		Name: s.name, Cluster: s.cluster, DataDir: s.dataDir, Bind: s.bind, Advertise: s.advertise, HTTP: s.http,
		Join: s.join, Zone: s.zone, Roles: s.roles, Server: s.server, BootstrapServers: s.bootstrap, LogStore: s.logStore, Keyspaces: s.keyspaces, ReapAfter: s.reapAfter, Insecure: s.insecure,
		Durability: node.Durability(s.durability), Logger: log,
	}
}

// startNode starts a node. A configuration that cannot work is a mistake of
// whoever wrote it.
func startNode(ctx context.Context, cfg node.Config) (*node.Node, error) {
	n, err := node.Start(ctx, cfg)
	if errors.Is(err, node.ErrConfig) {
		return nil, usagef("%s", oneLine(err.Error()))
	}
	return n, err
}
