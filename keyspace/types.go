package keyspace

import (
	"context"
	"fmt"
	"iter"

	"github.com/meshkv/meshkv/client"
)

var errTypes = fmt.Errorf("%w: not available yet: data types of eventual keyspaces", client.ErrBadRequest)

// Update implements client.Keyspace.
func (k *Keyspace) Update(context.Context, []client.Change, *client.UpdateOptions) (client.Version, error) {
	return client.Version{}, errTypes
}

// View implements client.Keyspace.
func (k *Keyspace) View(context.Context, string, *client.GetOptions) (client.View, error) {
	return client.View{}, errTypes
}

// Elements implements client.Keyspace.
func (k *Keyspace) Elements(context.Context, string, *client.ElementsOptions) iter.Seq2[client.Element, error] {
	return func(yield func(client.Element, error) bool) { yield(client.Element{}, errTypes) }
}
