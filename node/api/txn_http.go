package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"github.com/meshkv/meshkv/client"
)

// A txnBody is the transaction of the contract. Keys and values are text, or base64 under
// the names that end with _b64.
type txnBody struct {
	Compare []compareBody `json:"compare"`
	Then    []opBody      `json:"then"`
	Else    []opBody      `json:"else"`
}

// A spanBody is a key, a range from key to end, or all keys with a prefix.
type spanBody struct {
	Key       *string `json:"key"`
	KeyB64    *[]byte `json:"key_b64"`
	End       *string `json:"end"`
	EndB64    *[]byte `json:"end_b64"`
	Prefix    *string `json:"prefix"`
	PrefixB64 *[]byte `json:"prefix_b64"`
}

type compareBody struct {
	spanBody
	Target   string          `json:"target"`
	Op       string          `json:"op"`
	Value    json.RawMessage `json:"value"`
	ValueB64 *[]byte         `json:"value_b64"`
}

type opBody struct {
	Put    *putBody  `json:"put"`
	Delete *spanBody `json:"delete"`
	Get    *getBody  `json:"get"`
	Txn    *txnBody  `json:"txn"`
}

type putBody struct {
	Key      *string      `json:"key"`
	KeyB64   *[]byte      `json:"key_b64"`
	Value    *string      `json:"value"`
	ValueB64 *[]byte      `json:"value_b64"`
	Session  sessionParam `json:"session"`
}

type getBody struct {
	spanBody
	Revision uint64 `json:"revision"`
	Limit    int    `json:"limit"`
}

func (b *spanBody) span() (key, end string, err error) {
	k, err := textOrBytes{b.Key, b.KeyB64}.bytes("key")
	if err != nil {
		return "", "", err
	}
	e, err := textOrBytes{b.End, b.EndB64}.bytes("end")
	if err != nil {
		return "", "", err
	}
	if b.Prefix == nil && b.PrefixB64 == nil {
		return string(k), string(e), nil
	}
	p, err := textOrBytes{b.Prefix, b.PrefixB64}.bytes("prefix")
	if err == nil && (k != nil || e != nil) {
		err = fmt.Errorf("%w: a prefix stands alone, without key and end", client.ErrBadRequest)
	}
	return string(p), client.PrefixEnd(string(p)), err
}

var targets = map[string]client.CompareTarget{
	"version": client.TargetVersion, "create": client.TargetCreate, "mod": client.TargetMod,
	"value": client.TargetValue, "lease": client.TargetLease, "token": client.TargetToken,
}

var relations = map[string]client.CompareRelation{"=": client.Equal, "!=": client.NotEqual, "<": client.Less, ">": client.Greater}

func (b *compareBody) compare() (out client.Compare, err error) {
	if out.Key, out.End, err = b.span(); err != nil {
		return out, err
	}
	var ok bool
	if out.Target, ok = targets[b.Target]; !ok {
		return out, fmt.Errorf("%w: target is version, create, mod, value, lease or token", client.ErrBadRequest)
	}
	op := b.Op
	if op == "" {
		op = "="
	}
	if out.Relation, ok = relations[op]; !ok {
		return out, fmt.Errorf("%w: op is =, !=, < or >", client.ErrBadRequest)
	}
	if out.Target == client.TargetValue {
		var text *string
		if b.Value != nil {
			if err := json.Unmarshal(b.Value, &text); err != nil {
				return out, fmt.Errorf("%w: the value to compare with is text, or value_b64", client.ErrBadRequest)
			}
		}
		out.Value, err = textOrBytes{text, b.ValueB64}.bytes("value")
		return out, err
	}
	digits := string(b.Value)
	if n := len(digits); n >= 2 && digits[0] == '"' {
		digits = digits[1 : n-1] // versions and sessions are strings elsewhere
	}
	if out.Number, err = strconv.ParseUint(digits, 10, 64); err != nil || b.ValueB64 != nil {
		return out, fmt.Errorf("%w: what %s is compared with is a number", client.ErrBadRequest, b.Target)
	}
	return out, nil
}

func (b *txnBody) txn(depth int) (*client.Txn, error) {
	if depth > client.MaxTxnDepth {
		return nil, fmt.Errorf("%w: transactions are nested at most %d deep", client.ErrBadRequest, client.MaxTxnDepth)
	}
	t := &client.Txn{}
	for i := range b.Compare {
		c, err := b.Compare[i].compare()
		if err != nil {
			return nil, fmt.Errorf("compare %d: %w", i+1, err)
		}
		t.Compares = append(t.Compares, c)
	}
	for _, branch := range [...]struct {
		name string
		from []opBody
		to   *[]client.TxnOp
	}{{"then", b.Then, &t.Then}, {"else", b.Else, &t.Else}} {
		for i := range branch.from {
			op, err := branch.from[i].op(depth)
			if err != nil {
				return nil, fmt.Errorf("%s operation %d: %w", branch.name, i+1, err)
			}
			*branch.to = append(*branch.to, op)
		}
	}
	return t, nil
}

// op is the operation; that it is exactly one is seen later.
func (b *opBody) op(depth int) (op client.TxnOp, err error) {
	if b.Put != nil {
		key, err := textOrBytes{b.Put.Key, b.Put.KeyB64}.bytes("key")
		if err != nil {
			return op, err
		}
		value, err := textOrBytes{b.Put.Value, b.Put.ValueB64}.bytes("value")
		if err != nil {
			return op, err
		}
		op.Put = &client.TxnPut{Key: string(key), Value: value, Session: client.SessionID(b.Put.Session)}
	}
	if b.Delete != nil {
		op.Delete = &client.TxnDelete{}
		if op.Delete.Key, op.Delete.End, err = b.Delete.span(); err != nil {
			return op, err
		}
	}
	if b.Get != nil {
		op.Get = &client.TxnGet{Revision: b.Get.Revision, Limit: b.Get.Limit}
		if op.Get.Key, op.Get.End, err = b.Get.span(); err != nil {
			return op, err
		}
	}
	if b.Txn != nil {
		op.Txn, err = b.Txn.txn(depth + 1)
	}
	return op, err
}

func (s *Server) postTxn(ctx context.Context, w http.ResponseWriter, r *http.Request, c *call, q *query) error {
	id := q.requestID()
	if err := q.finish(); err != nil {
		return err
	}
	var body txnBody
	release, err := s.readJSON(w, r, &body, `{"compare":[…],"then":[…],"else":[…]}`)
	if err != nil {
		return err
	}
	defer release()
	txn, err := body.txn(1)
	if err != nil {
		return err
	}
	if err := txn.Check(); err != nil {
		return err
	}
	reply, err := s.callStrong(ctx, c.keyspace, &client.StrongCall{Kind: client.CallTxn, Request: id, Txn: txn})
	if err != nil {
		return err
	}
	return writeJSON(w, reply.Txn)
}

// ParseTxn reads the transaction that POST /v1/txn takes. ErrBadRequest if it is none.
func ParseTxn(r io.Reader) (*client.Txn, error) {
	var body txnBody
	d := json.NewDecoder(r)
	d.DisallowUnknownFields()
	err := d.Decode(&body)
	if err == nil && d.More() {
		err = errors.New("there is more than one value")
	}
	if err != nil {
		return nil, fmt.Errorf("%w: a transaction is {\"compare\":[…],\"then\":[…],\"else\":[…]}: %w", client.ErrBadRequest, err)
	}
	txn, err := body.txn(1)
	if err != nil {
		return nil, err
	}
	return txn, txn.Check()
}

// conditional is the condition of a write, or none.
func conditional(key string, absent bool, version client.Version) ([]client.Compare, error) {
	switch {
	case version.Inc != 0:
		return nil, fmt.Errorf("%w: parameter if-version is not the version of a strong keyspace", client.ErrBadRequest)
	case absent && !version.IsZero():
		return nil, fmt.Errorf("%w: if-absent and if-version exclude each other", client.ErrBadRequest)
	case absent:
		return []client.Compare{{Key: key, Target: client.TargetVersion, Relation: client.Equal}}, nil
	case !version.IsZero():
		return []client.Compare{{Key: key, Target: client.TargetMod, Relation: client.Equal, Number: version.Seq}}, nil
	}
	return nil, nil
}

// putOnce is a put that takes effect once: a transaction, since those have a name.
func (s *Server) putOnce(ctx context.Context, c *call, request string, value []byte, o *client.PutOptions) (client.Version, error) {
	if o.TTL != 0 || o.Ephemeral {
		return client.Version{}, fmt.Errorf("%w: an entry with ttl or ephemeral; bind it to a session instead", client.ErrNeedsEventual)
	}
	if err := o.Acks.LocalOnly(); err != nil {
		return client.Version{}, err
	}
	if err := checkKey(c.key); err != nil {
		return client.Version{}, err
	}
	compares, err := conditional(c.key, o.IfAbsent, o.IfVersion)
	if err != nil {
		return client.Version{}, err
	}
	reply, err := s.callStrong(ctx, c.keyspace, &client.StrongCall{Kind: client.CallTxn, Request: request, Txn: &client.Txn{
		Compares: compares, Then: []client.TxnOp{{Put: &client.TxnPut{Key: c.key, Value: value, Session: o.Session}}},
	}})
	switch {
	case err != nil:
		return client.Version{}, err
	case !reply.Txn.Succeeded:
		return client.Version{}, fmt.Errorf("%w: the key has another version", client.ErrConflict)
	}
	return client.Version{Seq: reply.Txn.Revision}, nil
}

// deleteOnce is a delete that takes effect once.
func (s *Server) deleteOnce(ctx context.Context, c *call, request string, o *client.DeleteOptions) (d client.Deletion, err error) {
	if err := o.Acks.LocalOnly(); err != nil {
		return d, err
	}
	if err := checkKey(c.key); err != nil {
		return d, err
	}
	compares, err := conditional(c.key, false, o.IfVersion)
	if err != nil {
		return d, err
	}
	reply, err := s.callStrong(ctx, c.keyspace, &client.StrongCall{Kind: client.CallTxn, Request: request, Txn: &client.Txn{
		Compares: compares, Then: []client.TxnOp{{Delete: &client.TxnDelete{Key: c.key}}},
	}})
	switch {
	case err != nil:
		return d, err
	case !reply.Txn.Succeeded:
		return d, fmt.Errorf("%w: the key has another version", client.ErrConflict)
	}
	if d.Deleted = len(reply.Txn.Results) > 0 && reply.Txn.Results[0].Deleted > 0; d.Deleted {
		d.Version = client.Version{Seq: reply.Txn.Revision}
	}
	return d, nil
}
