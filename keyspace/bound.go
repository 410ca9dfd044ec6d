package keyspace

import "github.com/meshkv/meshkv/crdt"

// Bound calls each for the cells of every key, hidden ones among them, with what is
// known of the incarnation that wrote them. Each must not call the keyspace, nor
// modify value. It is for small keyspaces: the mutex is held meanwhile.
func (k *Keyspace) Bound(each func(key string, value []byte, owner crdt.OwnerState)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.index.keys.Ascend("", func(top *crdt.Cell) bool {
		for _, c := range k.index.all(top.Key) {
			each(c.Key, c.Value, k.ownerOf(c))
		}
		return true
	})
}
