package main

import (
	"context"
	"fmt"

	"github.com/meshkv/meshkv/client"
)

func (n *demoNode) put(ctx context.Context, keyspace, key string, value []byte, ephemeral bool) error {
	ks, err := n.run.Keyspace(ctx, keyspace)
	if err == nil {
		_, err = ks.Put(ctx, key, value, &client.PutOptions{Ephemeral: ephemeral})
	}
	if err != nil {
		return fmt.Errorf("put on %s: %w", n.name, err)
	}
	return nil
}

func (n *demoNode) get(ctx context.Context, keyspace, key string) (client.Entry, error) {
	ks, err := n.run.Keyspace(ctx, keyspace)
	if err != nil {
		return client.Entry{}, err
	}
	return ks.Get(ctx, key, &client.GetOptions{Siblings: true})
}

func (n *demoNode) del(ctx context.Context, keyspace, key string) error {
	ks, err := n.run.Keyspace(ctx, keyspace)
	if err != nil {
		return fmt.Errorf("delete on %s: %w", n.name, err)
	}
	d, err := ks.Delete(ctx, key, nil)
	switch {
	case err != nil:
		return fmt.Errorf("delete on %s: %w", n.name, err)
	case !d.Deleted:
		return fmt.Errorf("delete on %s: %w", n.name, client.ErrNotFound)
	}
	return nil
}

func (n *demoNode) keys(ctx context.Context, keyspace, prefix string) ([]string, error) {
	ks, err := n.run.Keyspace(ctx, keyspace)
	if err != nil {
		return nil, fmt.Errorf("list on %s: %w", n.name, err)
	}
	var keys []string
	for e, err := range ks.List(ctx, prefix, &client.ListOptions{KeysOnly: true}) {
		if err != nil {
			return nil, fmt.Errorf("list on %s: %w", n.name, err)
		}
		keys = append(keys, e.Key)
	}
	return keys, nil
}
