package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/meshkv/meshkv/client"
)

// A pathBody is a path: text, or base64 under the name with _b64.
type pathBody struct {
	Path    *[]string `json:"path"`
	PathB64 *[][]byte `json:"path_b64"`
}

func (b *pathBody) path() ([]string, error) {
	switch {
	case b.Path != nil && b.PathB64 != nil:
		return nil, fmt.Errorf("%w: path and path_b64 exclude each other", client.ErrBadRequest)
	case b.PathB64 != nil:
		return texts(*b.PathB64), nil
	case b.Path == nil:
		return nil, nil
	}
	for i := range *b.Path {
		if _, err := (textOrBytes{text: &(*b.Path)[i]}).bytes("path"); err != nil {
			return nil, err
		}
	}
	return *b.Path, nil
}

func texts(b64 [][]byte) []string {
	out := make([]string, len(b64))
	for i, b := range b64 {
		out[i] = string(b)
	}
	return out
}

// A listBody is one value or a list of them.
type listBody[T any] []T

// UnmarshalJSON implements json.Unmarshaler.
func (l *listBody[T]) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '[' {
		return json.Unmarshal(b, (*[]T)(l))
	}
	var one T
	if err := json.Unmarshal(b, &one); err != nil {
		return err
	}
	*l = listBody[T]{one}
	return nil
}

// checkTexts refuses what JSON could not say as text.
func checkTexts(name string, list []string) error {
	for i := range list {
		if _, err := (textOrBytes{text: &list[i]}).bytes(name); err != nil {
			return err
		}
	}
	return nil
}

// lifetime is what the parameters of a call say of all that it adds.
type lifetime struct {
	ttl       time.Duration
	ephemeral bool
}

type counterBody struct {
	Add   *int64 `json:"add"`
	Reset bool   `json:"reset"`
}

const counterShape = `{"add":5} or {"reset":true}`

func (b *counterBody) changes(key string, _ lifetime) ([]client.Change, error) {
	switch {
	case b.Add != nil && !b.Reset:
		return []client.Change{{Verb: client.VerbCounterAdd, Key: key, N: *b.Add}}, nil
	case b.Add == nil && b.Reset:
		return []client.Change{{Verb: client.VerbCounterReset, Key: key}}, nil
	}
	return nil, errShape(counterShape)
}

func errShape(shape string) error {
	return fmt.Errorf("%w: the body is %s", client.ErrBadRequest, shape)
}

type setBody struct {
	Add       listBody[string] `json:"add"`
	AddB64    listBody[[]byte] `json:"add_b64"`
	Remove    listBody[string] `json:"remove"`
	RemoveB64 listBody[[]byte] `json:"remove_b64"`
}

const setShape = `{"add":["a"],"remove":["b"]}`

// changes removes first, so that what is named twice is in the set.
func (b *setBody) changes(key string, l lifetime) (out []client.Change, err error) {
	if err := errors.Join(checkTexts("add", b.Add), checkTexts("remove", b.Remove)); err != nil {
		return nil, err
	}
	for _, e := range append(b.Remove, texts(b.RemoveB64)...) {
		out = append(out, client.Change{Verb: client.VerbSetRemove, Key: key, Path: []string{e}})
	}
	for _, e := range append(b.Add, texts(b.AddB64)...) {
		out = append(out, client.Change{Verb: client.VerbSetAdd, Key: key, Path: []string{e}, TTL: l.ttl, Ephemeral: l.ephemeral})
	}
	if len(out) == 0 {
		return nil, errShape(setShape)
	}
	return out, nil
}

type mapBody struct {
	Put       map[string]json.RawMessage `json:"put"`
	Fields    []fieldBody                `json:"fields"`
	Remove    listBody[listBody[string]] `json:"remove"`
	RemoveB64 listBody[listBody[[]byte]] `json:"remove_b64"`
}

type fieldBody struct {
	pathBody
	Value    *string `json:"value"`
	ValueB64 *[]byte `json:"value_b64"`
}

const mapShape = `{"put":{"field":"text","nested":{"field":"text"}},"remove":["field",["nested","field"]]}`

// changes removes first.
func (b *mapBody) changes(key string, l lifetime) (out []client.Change, err error) {
	remove := func(path []string) {
		out = append(out, client.Change{Verb: client.VerbMapRemove, Key: key, Path: path})
	}
	for _, path := range b.Remove {
		if err := checkTexts("remove", path); err != nil {
			return nil, err
		}
		remove(path)
	}
	for _, path := range b.RemoveB64 {
		remove(texts(path))
	}
	put := func(path []string, value []byte) {
		out = append(out, client.Change{Verb: client.VerbMapPut, Key: key, Path: path, Value: value, TTL: l.ttl, Ephemeral: l.ephemeral})
	}
	if err := putNested(nil, b.Put, put); err != nil {
		return nil, err
	}
	for i := range b.Fields {
		f := &b.Fields[i]
		path, err := f.path()
		if err != nil {
			return nil, err
		}
		value, err := textOrBytes{f.Value, f.ValueB64}.bytes("value")
		if err != nil {
			return nil, err
		}
		put(path, value)
	}
	if len(out) == 0 {
		return nil, errShape(mapShape)
	}
	return out, nil
}

// putNested puts the fields of an object, in the order of their names.
func putNested(path []string, object map[string]json.RawMessage, put func([]string, []byte)) error {
	if len(path) >= client.MaxFields {
		return client.CheckFields(append(path, "x"))
	}
	for _, name := range slices.Sorted(maps.Keys(object)) {
		if err := checkTexts("path", []string{name}); err != nil {
			return err
		}
		at := append(slices.Clip(path), name)
		var text *string
		if err := json.Unmarshal(object[name], &text); err == nil && text != nil {
			value, err := textOrBytes{text: text}.bytes("value")
			if err != nil {
				return err
			}
			put(at, value)
			continue
		}
		var inner map[string]json.RawMessage
		if err := json.Unmarshal(object[name], &inner); err != nil || len(inner) == 0 {
			return fmt.Errorf("%w: the value of a field is text, or an object of fields; bytes are given in \"fields\":[{\"path\":[…],\"value_b64\":…}]", client.ErrBadRequest)
		}
		if err := putNested(at, inner, put); err != nil {
			return err
		}
	}
	return nil
}

type flagBody struct {
	Enable  *bool `json:"enable"`
	Inverse bool  `json:"inverse"`
}

const flagShape = `{"enable":true}, with "inverse":true for an inverse flag`

func (b *flagBody) changes(key string, _ lifetime) ([]client.Change, error) {
	if b.Enable == nil {
		return nil, errShape(flagShape)
	}
	return []client.Change{{Verb: client.FlagVerb(b.Inverse, *b.Enable), Key: key}}, nil
}

type logBody struct {
	Append    listBody[string] `json:"append"`
	AppendB64 listBody[[]byte] `json:"append_b64"`
	Cap       int64            `json:"cap"`
}

const logShape = `{"append":["text"]}, {"append_b64":["dGV4dA=="]} or {"cap":100}`

func (b *logBody) changes(key string, _ lifetime) (out []client.Change, err error) {
	if b.Append != nil && b.AppendB64 != nil {
		return nil, fmt.Errorf("%w: append and append_b64 exclude each other, for their order would not be known", client.ErrBadRequest)
	}
	if err := checkTexts("append", b.Append); err != nil {
		return nil, err
	}
	if b.Cap != 0 {
		out = append(out, client.Change{Verb: client.VerbLogCap, Key: key, N: b.Cap})
	}
	for _, e := range b.Append {
		out = append(out, client.Change{Verb: client.VerbLogAppend, Key: key, Value: []byte(e)})
	}
	for _, e := range b.AppendB64 {
		out = append(out, client.Change{Verb: client.VerbLogAppend, Key: key, Value: e})
	}
	if len(out) == 0 {
		return nil, errShape(logShape)
	}
	return out, nil
}

type boundedBody struct {
	Create *struct {
		Bound int64 `json:"bound"`
		Value int64 `json:"value"`
	} `json:"create"`
	Add      *int64 `json:"add"`
	Transfer *struct {
		To string `json:"to"`
		N  int64  `json:"n"`
	} `json:"transfer"`
}

const boundedShape = `{"create":{"bound":0,"value":100}}, {"add":-5} or {"transfer":{"to":"NODE","n":10}}`

func (b *boundedBody) changes(key string, _ lifetime) (out []client.Change, err error) {
	if b.Create != nil {
		out = append(out, client.Change{Verb: client.VerbBoundedCreate, Key: key, Bound: b.Create.Bound, N: b.Create.Value})
	}
	if b.Add != nil {
		out = append(out, client.Change{Verb: client.VerbBoundedAdd, Key: key, N: *b.Add})
	}
	if b.Transfer != nil {
		out = append(out, client.Change{Verb: client.VerbBoundedTransfer, Key: key, To: b.Transfer.To, N: b.Transfer.N})
	}
	if len(out) != 1 {
		return nil, errShape(boundedShape)
	}
	return out, nil
}

// An updateBody is a batch of changes of any keys and types, in their order.
type updateBody struct {
	Changes []changeBody `json:"changes"`
}

const updateShape = `{"changes":[{"verb":"counter-add","key":"a","n":1},{"verb":"set-add","key":"b","path":["element"]},…]}`

type changeBody struct {
	Verb   string  `json:"verb"`
	Key    *string `json:"key"`
	KeyB64 *[]byte `json:"key_b64"`
	fieldBody
	N         int64         `json:"n"`
	Bound     int64         `json:"bound"`
	To        string        `json:"to"`
	TTL       durationParam `json:"ttl"`
	Ephemeral bool          `json:"ephemeral"`
}

func (b *updateBody) changes() ([]client.Change, error) {
	out := make([]client.Change, len(b.Changes))
	for i := range b.Changes {
		c, err := b.Changes[i].change()
		if err != nil {
			return nil, fmt.Errorf("change %d: %w", i+1, err)
		}
		out[i] = c
	}
	return out, nil
}

func (b *changeBody) change() (c client.Change, err error) {
	if c.Verb, err = client.ParseVerb(b.Verb); err != nil {
		return c, err
	}
	key, err := textOrBytes{b.Key, b.KeyB64}.bytes("key")
	if err != nil {
		return c, err
	}
	if c.Path, err = b.path(); err != nil {
		return c, err
	}
	if c.Value, err = (textOrBytes{b.Value, b.ValueB64}).bytes("value"); err != nil {
		return c, err
	}
	c.Key, c.N, c.Bound, c.To, c.TTL, c.Ephemeral = string(key), b.N, b.Bound, b.To, time.Duration(b.TTL), b.Ephemeral
	return c, nil
}

// ParseUpdate reads the batch that POST /v1/update takes. ErrBadRequest if it is none.
func ParseUpdate(text []byte) ([]client.Change, error) {
	var body updateBody
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	err := d.Decode(&body)
	if err == nil {
		if _, end := d.Token(); end != io.EOF {
			err = errors.New("there is more than one value")
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%w: an update is %s: %w", client.ErrBadRequest, updateShape, err)
	}
	return body.changes()
}
