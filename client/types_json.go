package client

import (
	"encoding/base64"
	"fmt"
	"time"
	"unicode/utf8"
)

// pathJSON is a path: path_b64 where one of its parts is not UTF-8.
type pathJSON struct {
	Path    []string `json:"path,omitempty"`
	PathB64 [][]byte `json:"path_b64,omitempty"`
}

func pathOf(path []string) (out pathJSON) {
	for _, p := range path {
		if !utf8.ValidString(p) {
			for _, p := range path {
				out.PathB64 = append(out.PathB64, []byte(p))
			}
			return out
		}
	}
	out.Path = path
	return out
}

// String is the form of the HTTP API and of the command line: base64 without padding.
func (p Position) String() string { return base64.RawURLEncoding.EncodeToString([]byte(p)) }

// ParsePosition is the inverse of String.
func ParsePosition(s string) (Position, error) {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		return "", fmt.Errorf("%w: position %q is not one that meshkv printed", ErrBadRequest, s)
	}
	return Position(b), nil
}

// MarshalJSON is the element of the HTTP API. A nil Value is left out.
func (e Element) MarshalJSON() ([]byte, error) {
	out := struct {
		pathJSON
		valueJSON
		Version   string     `json:"version"`
		Origin    string     `json:"origin"`
		Modified  *time.Time `json:"modified,omitempty"`
		Expires   *time.Time `json:"expires,omitempty"`
		Ephemeral bool       `json:"ephemeral,omitempty"`
		Position  string     `json:"position"`
	}{
		pathJSON: pathOf(e.Path), Version: e.Version.String(), Origin: e.Origin, Modified: timeJSON(e.Modified),
		Expires: timeJSON(e.Expires), Ephemeral: e.Ephemeral, Position: e.Position.String(),
	}
	if e.Value != nil {
		out.valueJSON = valueOf(e.Value)
	}
	return marshalPlain(out)
}

// MarshalJSON is the view of the HTTP API. The value is that of a counter or a flag.
func (v View) MarshalJSON() ([]byte, error) {
	out := struct {
		keyJSON
		Type     string     `json:"type"`
		Value    any        `json:"value,omitempty"`
		Bound    *int64     `json:"bound,omitempty"`
		Rights   *int64     `json:"rights,omitempty"`
		Len      *int       `json:"len,omitempty"`
		Version  string     `json:"version"`
		Modified *time.Time `json:"modified,omitempty"`
	}{keyJSON: keyOf(v.Key), Type: v.Type.String(), Version: v.Version.String(), Modified: timeJSON(v.Modified)}
	switch v.Type {
	case TypeCounter:
		out.Value = v.Number
	case TypeFlag, TypeInverseFlag:
		out.Value = v.Enabled
	case TypeBounded:
		out.Value, out.Bound, out.Rights = v.Number, &v.Bound, &v.Rights
	case TypeSet, TypeMap, TypeLog:
		out.Len = &v.Len
	}
	return marshalPlain(out)
}

// A Collected is some elements of a set, map or log as one JSON value.
type Collected struct {
	View     View
	Elements []Element
	More     bool // there may be others after them
}

// MarshalJSON is the set, map or log of the HTTP API: a list, an object in which nested
// maps are objects, and a list of entries. What is not UTF-8 stands apart: in value_b64
// the elements of a set, in fields those of a map.
func (c Collected) MarshalJSON() ([]byte, error) {
	out := struct {
		keyJSON
		Type     string     `json:"type"`
		Value    any        `json:"value"`
		ValueB64 [][]byte   `json:"value_b64,omitempty"`
		Fields   []field    `json:"fields,omitempty"`
		Len      int        `json:"len"`
		Version  string     `json:"version"`
		Modified *time.Time `json:"modified,omitempty"`
		Next     string     `json:"next,omitempty"`
	}{
		keyJSON: keyOf(c.View.Key), Type: c.View.Type.String(), Len: c.View.Len, Version: c.View.Version.String(), Modified: timeJSON(c.View.Modified),
	}
	switch c.View.Type {
	case TypeMap:
		out.Value, out.Fields = nest(c.Elements)
	case TypeLog:
		out.Value = logJSON(c.Elements)
	default:
		texts := []string{}
		for _, e := range c.Elements {
			if utf8.ValidString(e.Path[0]) {
				texts = append(texts, e.Path[0])
			} else {
				out.ValueB64 = append(out.ValueB64, []byte(e.Path[0]))
			}
		}
		out.Value = texts
	}
	if n := len(c.Elements); c.More && n > 0 {
		out.Next = c.Elements[n-1].Position.String()
	}
	return marshalPlain(out)
}

func logJSON(elements []Element) any {
	type entry struct {
		valueJSON
		Origin   string     `json:"origin"`
		Modified *time.Time `json:"modified,omitempty"`
	}
	out := make([]entry, len(elements))
	for i, e := range elements {
		out[i] = entry{valueOf(e.Value), e.Origin, timeJSON(e.Modified)}
	}
	return out
}

// A field is one of a map that cannot stand in an object of text.
type field struct {
	pathJSON
	valueJSON
}

// nest makes an object of the fields of a map, and a list of the others.
func nest(elements []Element) (map[string]any, []field) {
	root := make(map[string]any)
	var others []field
	for _, e := range elements {
		p := pathOf(e.Path)
		if p.Path == nil || !utf8.Valid(e.Value) || !setField(root, p.Path, string(e.Value)) {
			others = append(others, field{p, valueOf(e.Value)})
		}
	}
	return root, others
}

// setField sets a field unless a register stands where a map is needed, or something stands
// there already: elements that were read one after another may disagree.
func setField(object map[string]any, path []string, value string) bool {
	for _, f := range path[:len(path)-1] {
		if object[f] == nil {
			object[f] = make(map[string]any)
		}
		inner, ok := object[f].(map[string]any)
		if !ok {
			return false
		}
		object = inner
	}
	last := path[len(path)-1]
	if object[last] != nil {
		return false
	}
	object[last] = value
	return true
}
