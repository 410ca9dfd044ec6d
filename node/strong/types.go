package strong

import (
	"context"
	"iter"

	"github.com/meshkv/meshkv/client"
)

// Update implements client.Keyspace: it is refused.
func (s *Space) Update(context.Context, []client.Change, *client.UpdateOptions) (client.Version, error) {
	return client.Version{}, client.ErrTypes(s.name)
}

// View implements client.Keyspace: it is refused.
func (s *Space) View(context.Context, string, *client.GetOptions) (client.View, error) {
	return client.View{}, client.ErrTypes(s.name)
}

// Elements implements client.Keyspace: it is refused.
func (s *Space) Elements(context.Context, string, *client.ElementsOptions) iter.Seq2[client.Element, error] {
	return func(yield func(client.Element, error) bool) { yield(client.Element{}, client.ErrTypes(s.name)) }
}
