package client

import (
	"strconv"
	"time"
	"unicode/utf8"
)

// String is the decimal form that the HTTP API and the command line use.
func (id SessionID) String() string { return strconv.FormatUint(uint64(id), 10) }

// ParseSessionID is the inverse of String.
func ParseSessionID(s string) (SessionID, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n == 0 {
		return 0, errSessionID
	}
	return SessionID(n), nil
}

// String is the mode's name in the HTTP API.
func (m LockMode) String() string {
	switch m {
	case Exclusive:
		return "exclusive"
	case Shared:
		return "shared"
	case Place:
		return "place"
	}
	return "mode " + strconv.Itoa(int(m))
}

// valueJSON is bytes that are text as a rule: value_b64 where they are not UTF-8.
type valueJSON struct {
	Value    *string `json:"value,omitempty"`
	ValueB64 []byte  `json:"value_b64,omitempty"`
}

func valueOf(b []byte) valueJSON {
	if utf8.Valid(b) {
		s := string(b)
		return valueJSON{Value: &s}
	}
	return valueJSON{ValueB64: b}
}

// MarshalJSON is the entry of the HTTP API, with what strong keyspaces know beside.
func (e StrongEntry) MarshalJSON() ([]byte, error) {
	out := struct {
		keyJSON
		Value    []byte     `json:"value"`
		Version  string     `json:"version"`
		Create   uint64     `json:"create"`
		Mod      uint64     `json:"mod"`
		Puts     uint64     `json:"puts"`
		Session  string     `json:"session,omitempty"`
		Modified *time.Time `json:"modified,omitempty"`
	}{
		keyJSON: keyOf(e.Key), Value: append([]byte{}, e.Value...), Version: Version{Seq: e.Mod}.String(),
		Create: e.Create, Mod: e.Mod, Puts: e.Version, Session: sessionJSON(e.Session),
	}
	if e.ModifiedMillis != 0 {
		out.Modified = timeJSON(time.UnixMilli(e.ModifiedMillis))
	}
	return marshalPlain(out)
}

func sessionJSON(id SessionID) string {
	if id == 0 {
		return ""
	}
	return id.String()
}

// MarshalJSON is the result of a transaction in the HTTP API.
func (r TxnResult) MarshalJSON() ([]byte, error) {
	return marshalPlain(struct {
		Succeeded bool          `json:"succeeded"`
		Results   []TxnOpResult `json:"results"`
		Version   string        `json:"version"`
	}{r.Succeeded, list(r.Results), Version{Seq: r.Revision}.String()})
}

// MarshalJSON is the result of an operation of a transaction in the HTTP API.
func (r TxnOpResult) MarshalJSON() ([]byte, error) {
	return marshalPlain(struct {
		Entries []StrongEntry `json:"entries,omitempty"`
		More    bool          `json:"more,omitempty"`
		Deleted uint64        `json:"deleted,omitempty"`
		Txn     *TxnResult    `json:"txn,omitempty"`
	}{r.Entries, r.More, r.Deleted, r.Txn})
}

// MarshalJSON is the holder of the HTTP API.
func (h LockHolder) MarshalJSON() ([]byte, error) {
	return marshalPlain(struct {
		Session string       `json:"session"`
		Token   FencingToken `json:"token,omitempty"`
		Mode    string       `json:"mode"`
		valueJSON
		Delayed bool `json:"delayed,omitempty"`
	}{h.Session.String(), h.Token, h.Mode.String(), valueOf(h.Value), h.Delayed})
}

// MarshalJSON is the lock of the HTTP API.
func (l LockInfo) MarshalJSON() ([]byte, error) {
	return marshalPlain(struct {
		Name     string       `json:"name"`
		Holders  []LockHolder `json:"holders"`
		Waiting  []LockHolder `json:"waiting"`
		Revision uint64       `json:"revision"`
	}{l.Name, list(l.Holders), list(l.Waiting), l.Revision})
}

// MarshalJSON is the leader of the HTTP API: the session of the one who leads, empty if
// nobody does.
func (l Leader) MarshalJSON() ([]byte, error) {
	out := struct {
		Leader string `json:"leader"`
		valueJSON
		Token FencingToken `json:"token,omitempty"`
		Known bool         `json:"known"`
	}{Known: l.Known}
	if l.Elected {
		out.Leader, out.valueJSON, out.Token = l.Session.String(), valueOf(l.Value), l.Token
	}
	return marshalPlain(out)
}

// MarshalJSON is the allocation of the HTTP API.
func (a Allocation) MarshalJSON() ([]byte, error) {
	return marshalPlain(struct {
		First   uint64       `json:"first"`
		Size    uint64       `json:"size"`
		Token   FencingToken `json:"token"`
		Session string       `json:"session,omitempty"`
		Label   string       `json:"label,omitempty"`
	}{a.First, a.Size, a.Token, sessionJSON(a.Session), a.Label})
}

// MarshalJSON is the group of the HTTP API.
func (i StrongInfo) MarshalJSON() ([]byte, error) {
	return marshalPlain(struct {
		Name      string        `json:"name"`
		Group     string        `json:"group"`
		Epoch     uint64        `json:"epoch"`
		Leader    string        `json:"leader"`
		Term      uint64        `json:"term"`
		Voters    []StrongVoter `json:"voters"`
		Applied   uint64        `json:"applied"`
		Commit    uint64        `json:"commit"`
		Revision  uint64        `json:"revision"`
		Compacted uint64        `json:"compacted"`
		Keys      int           `json:"keys"`
		Bytes     uint64        `json:"bytes"`
		Quota     uint64        `json:"quota"`
	}{i.Name, i.Group, i.Epoch, i.Leader, i.Term, list(i.Voters), i.Applied, i.Commit, i.Revision, i.Compacted, i.Keys, i.Bytes, i.Quota})
}

// MarshalJSON is the voter of the HTTP API.
func (v StrongVoter) MarshalJSON() ([]byte, error) {
	return marshalPlain(struct {
		Server  string `json:"server"`
		Replica string `json:"replica"`
		Role    string `json:"role"`
		Alive   bool   `json:"alive"`
	}{v.Server, v.Replica, v.Role, v.Alive})
}

// MarshalJSON is the report of the HTTP API.
func (r RecoveryReport) MarshalJSON() ([]byte, error) {
	return marshalPlain(struct {
		Epoch    uint64 `json:"epoch"`
		Survivor string `json:"survivor"`
		Index    uint64 `json:"index"`
		Term     uint64 `json:"term"`
	}{r.Epoch, r.Survivor, r.Index, r.Term})
}
