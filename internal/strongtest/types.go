package strongtest

import (
	"context"
	"iter"

	"github.com/meshkv/meshkv/client"
)

// Update implements client.Keyspace: it is refused.
func (k *Keyspace) Update(context.Context, []client.Change, *client.UpdateOptions) (client.Version, error) {
	return client.Version{}, client.ErrTypes(k.name)
}

// View implements client.Keyspace: it is refused.
func (k *Keyspace) View(context.Context, string, *client.GetOptions) (client.View, error) {
	return client.View{}, client.ErrTypes(k.name)
}

// Elements implements client.Keyspace: it is refused.
func (k *Keyspace) Elements(context.Context, string, *client.ElementsOptions) iter.Seq2[client.Element, error] {
	return func(yield func(client.Element, error) bool) { yield(client.Element{}, client.ErrTypes(k.name)) }
}
