package main

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/meshkv/meshkv/client"
)

const version = "0.1.0"

// An embedded node runs in this process.
type embedded interface {
	client.Cluster
	Stop(ctx context.Context) error
	Done() <-chan struct{}
	Err() error
	MeshAddr() string
	APIAddr() string
	Name() string
	Inc() string
}

type nodeConfig struct {
	Name, DataDir, Bind, Advertise, HTTP string
	Join                                 []string
	Zone                                 string
	Roles                                []string
	ReapAfter                            time.Duration
	Insecure                             bool
	Durability, Cluster                  string
	Logger                               *slog.Logger
	Network                              any
}

func (s settings) nodeConfig(log *slog.Logger) nodeConfig {
	return nodeConfig{
		Name: s.name, DataDir: s.dataDir, Bind: s.bind, Advertise: s.advertise, HTTP: s.http, Join: s.join,
		Zone: s.zone, Roles: s.roles, ReapAfter: s.reapAfter, Insecure: s.insecure,
		Durability: s.durability, Cluster: s.cluster, Logger: log,
	}
}

func startNode(ctx context.Context, cfg nodeConfig) (embedded, error) {
	return nil, errors.New("no node yet")
}

func dial(ctx context.Context, addr string) (remote, error) { return nil, client.ErrUnavailable }
