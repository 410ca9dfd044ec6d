package client

import (
	"bytes"
	"encoding/json"
	"time"
	"unicode/utf8"
)

// The JSON of these types is that of the HTTP API and of the command line. A key
// that is not UTF-8 is given as key_b64.

type keyJSON struct {
	Key    *string `json:"key,omitempty"`
	KeyB64 []byte  `json:"key_b64,omitempty"`
}

func keyOf(key string) keyJSON {
	if utf8.ValidString(key) {
		return keyJSON{Key: &key}
	}
	return keyJSON{KeyB64: []byte(key)}
}

type entryJSON struct {
	keyJSON
	Type      Type          `json:"type,omitempty"`
	Value     *[]byte       `json:"value,omitempty"`
	Version   string        `json:"version,omitempty"`
	Origin    string        `json:"origin,omitempty"`
	Modified  *time.Time    `json:"modified,omitempty"`
	Expires   *time.Time    `json:"expires,omitempty"`
	Ephemeral bool          `json:"ephemeral,omitempty"`
	Siblings  []siblingJSON `json:"siblings,omitempty"`
}

type siblingJSON struct {
	Value    []byte    `json:"value"`
	Version  string    `json:"version"`
	Origin   string    `json:"origin"`
	Modified time.Time `json:"modified"`
}

// MarshalJSON is the entry of the HTTP API. A nil Value is left out.
func (e Entry) MarshalJSON() ([]byte, error) { return marshalPlain(e.json()) }

func (e Entry) json() entryJSON {
	out := entryJSON{
		keyJSON:   keyOf(e.Key),
		Type:      e.Type,
		Version:   e.Version.String(),
		Origin:    e.Origin,
		Modified:  timeJSON(e.Modified),
		Expires:   timeJSON(e.Expires),
		Ephemeral: e.Ephemeral,
	}
	if e.Value != nil {
		out.Value = &e.Value
	}
	for _, s := range e.Siblings {
		out.Siblings = append(out.Siblings, siblingJSON{append([]byte{}, s.Value...), s.Version.String(), s.Origin, s.Modified.UTC()})
	}
	return out
}

func timeJSON(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// MarshalJSON is the event of the HTTP API.
func (e Event) MarshalJSON() ([]byte, error) {
	out := struct {
		Type   EventType  `json:"type"`
		Entry  *entryJSON `json:"entry,omitempty"`
		Prev   *entryJSON `json:"prev,omitempty"`
		Reason Reason     `json:"reason,omitempty"`
		Cursor Cursor     `json:"cursor,omitempty"`
		More   bool       `json:"more,omitempty"`
	}{Type: e.Type, Reason: e.Reason, Cursor: e.Cursor, More: e.More}
	if e.Type == EventPut || e.Type == EventDelete {
		entry := e.Entry.json()
		out.Entry = &entry
	}
	if e.Prev != nil {
		prev := e.Prev.json()
		out.Prev = &prev
	}
	return marshalPlain(out)
}

// MarshalJSON is the member of the HTTP API.
func (m Member) MarshalJSON() ([]byte, error) {
	out := struct {
		Name    string       `json:"name"`
		Addr    string       `json:"addr"`
		APIAddr string       `json:"api_addr,omitempty"`
		Status  MemberStatus `json:"status"`
		Zone    string       `json:"zone"`
		Roles   []string     `json:"roles"`
		Inc     string       `json:"inc"`
		RTT     float64      `json:"rtt_ms,omitempty"`
	}{m.Name, m.Addr, m.APIAddr, m.Status, m.Zone, list(m.Roles), m.Inc, milliseconds(m.RTT)}
	return marshalPlain(out)
}

// MarshalJSON is the keyspace of the HTTP API.
func (k KeyspaceInfo) MarshalJSON() ([]byte, error) {
	return marshalPlain(struct {
		Name    string   `json:"name"`
		Mode    string   `json:"mode"`
		Members []string `json:"members"`
		Keys    int      `json:"keys"`
		Cells   int      `json:"cells"`
		Bytes   int64    `json:"bytes"`
		Digest  string   `json:"digest"`

		Settings *KeyspaceSettings `json:"settings,omitempty"`
		Invalid  uint64            `json:"invalid,omitempty"`
	}{k.Name, k.Mode, list(k.Members), k.Keys, k.Cells, k.Bytes, k.Digest, nonZero(k.Settings), k.Invalid})
}

// MarshalJSON is the digest of the HTTP API.
func (d Digest) MarshalJSON() ([]byte, error) {
	return marshalPlain(struct {
		Keyspace string `json:"keyspace"`
		Digest   string `json:"digest"`
		Clock    string `json:"clock"`
		Entries  int    `json:"entries"`
	}{d.Keyspace, d.Digest, d.Clock, d.Entries})
}

// nonZero is v, or nil if there is nothing in it.
func nonZero[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// list and dict are never null in JSON.
func list[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

func dict[K comparable, V any](m map[K]V) map[K]V {
	if m == nil {
		return map[K]V{}
	}
	return m
}

// marshalPlain leaves <, > and & as they are: nobody puts this into HTML.
func marshalPlain(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
