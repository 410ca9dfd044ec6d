package host

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/meshkv/meshkv/consensus/machine"
	"github.com/meshkv/meshkv/consensus/placement"
)

// System is the name of the keyspace that holds the catalog.
const System = "_system"

// Keys of the catalog.
const (
	serversPrefix   = "servers/"
	keyspacesPrefix = "keyspaces/"
)

// An Entry is what the catalog says of one strong keyspace, as committed at a revision of
// the system keyspace: of two, the one of the higher revision counts.
type Entry struct {
	Revision uint64             `json:"revision"`
	Cluster  string             `json:"cluster"` // id; entries of another cluster count for nothing
	Keyspace placement.Keyspace `json:"keyspace"`
}

// MarshalEntry is the published form of e.
func MarshalEntry(e Entry) ([]byte, error) { return json.Marshal(e) }

// ParseEntry is the inverse of MarshalEntry.
func ParseEntry(b []byte) (Entry, error) {
	var e Entry
	if err := json.Unmarshal(b, &e); err != nil {
		return Entry{}, fmt.Errorf("entry of the catalog: %w", err)
	}
	if e.Keyspace.Name == "" || e.Revision == 0 || e.Cluster == "" {
		return Entry{}, errors.New("entry of the catalog: no name, revision or cluster")
	}
	return e, nil
}

// entryAt reads the entry of a keyspace out of the catalog; ok is false if there is none.
func (h *Host) entryAt(v *machine.View, name string) (e Entry, ok bool, err error) {
	m := v.Get(keyspacesPrefix + name)
	if m == nil {
		return Entry{}, false, nil
	}
	e, err = h.entryOf(m)
	return e, err == nil, err
}

func (h *Host) entryOf(m *machine.Entry) (Entry, error) {
	e := Entry{Revision: uint64(m.Mod), Cluster: h.identity.get().Cluster}
	if err := json.Unmarshal(m.Value, &e.Keyspace); err != nil {
		return Entry{}, fmt.Errorf("catalog key %s: %w", m.Key, err)
	}
	return e, nil
}

// entriesOf are all entries of the catalog, by name.
func (h *Host) entriesOf(v *machine.View) ([]Entry, error) {
	return valuesOf(v, keyspacesPrefix, h.entryOf)
}

// serversOf are all servers of the catalog, by name.
func serversOf(v *machine.View) ([]placement.Server, error) {
	return valuesOf(v, serversPrefix, func(m *machine.Entry) (s placement.Server, err error) {
		err = json.Unmarshal(m.Value, &s)
		return s, err
	})
}

func valuesOf[T any](v *machine.View, prefix string, parse func(*machine.Entry) (T, error)) (all []T, err error) {
	res, err := v.Range(&machine.Get{Span: machine.Prefix(prefix)})
	if err != nil {
		return nil, err
	}
	for _, m := range res.Entries {
		t, err := parse(m)
		if err != nil {
			return nil, fmt.Errorf("read catalog key %s: %w", strings.TrimPrefix(m.Key, prefix), err)
		}
		all = append(all, t)
	}
	return all, nil
}

// put writes a value into the catalog if its key still has the revision mod; 0: is not there.
func put(key string, value any, mod uint64) (*machine.Txn, error) {
	b, err := json.Marshal(value)
	if err != nil {
		return nil, err
	}
	return &machine.Txn{
		Compares: []machine.Compare{{Span: machine.Span{Key: key}, Target: machine.TargetMod, Relation: machine.Equal, Number: mod}},
		Then:     []machine.Op{&machine.Put{Key: key, Value: b}},
	}, nil
}
