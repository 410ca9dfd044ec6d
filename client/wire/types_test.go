package wire

import (
	"errors"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func genPath(t *rapid.T) []string {
	if rapid.Bool().Draw(t, "no path") {
		return nil
	}
	path := []string{}
	for range rapid.IntRange(0, 3).Draw(t, "fields") {
		path = append(path, genString(t, "field"))
	}
	return path
}

// A body is one kind of body about data types.
type body struct {
	name   string
	make   func(t *rapid.T) any
	append func(v any) []byte
	decode func(b []byte) (any, error)
}

func bodyOf[T any](name string, make func(t *rapid.T) T, appendTo func([]byte, *T) []byte, decode func([]byte, *T) error) body {
	return body{
		name:   name,
		make:   func(t *rapid.T) any { return make(t) },
		append: func(v any) []byte { x := v.(T); return appendTo(nil, &x) },
		decode: func(b []byte) (any, error) {
			var v T
			err := decode(b, &v)
			return v, err
		},
	}
}

func typeBodies() []body {
	return []body{
		bodyOf("update", func(t *rapid.T) UpdateCall {
			u := UpdateCall{Flags: Flags(rapid.Uint16().Draw(t, "flags")), After: genString(t, "after"), Acks: rapid.Uint64().Draw(t, "acks")}
			for range rapid.IntRange(0, 3).Draw(t, "changes") {
				u.Changes = append(u.Changes, Change{
					Verb: rapid.Byte().Draw(t, "verb"), Key: genString(t, "key"), Path: genPath(t), Value: genBytes(t, "value", true),
					N: rapid.Int64().Draw(t, "n"), Bound: rapid.Int64().Draw(t, "bound"), To: genString(t, "to"),
					TTL: time.Duration(rapid.Int64().Draw(t, "ttl")), Flags: Flags(rapid.Uint16().Draw(t, "flags")),
				})
			}
			return u
		}, AppendUpdate, DecodeUpdate),
		bodyOf("view call", func(t *rapid.T) ViewCall {
			return ViewCall{Key: genString(t, "key"), After: genString(t, "after")}
		}, AppendViewCall, DecodeViewCall),
		bodyOf("view", func(t *rapid.T) KeyView {
			return KeyView{
				Type: genString(t, "type"), Version: genVersion(t), Modified: rapid.Int64().Draw(t, "modified"), Len: rapid.Uint64().Draw(t, "len"),
				Number: rapid.Int64().Draw(t, "number"), Enabled: rapid.Bool().Draw(t, "enabled"), Bound: rapid.Int64().Draw(t, "bound"),
				Rights: rapid.Int64().Draw(t, "rights"),
			}
		}, AppendView, DecodeView),
		bodyOf("elements call", func(t *rapid.T) ElementsCall {
			return ElementsCall{
				Key: genString(t, "key"), Type: genString(t, "type"), Under: genPath(t), After: genString(t, "after"),
				Limit: rapid.Uint64().Draw(t, "limit"), Seen: genString(t, "seen"),
			}
		}, AppendElementsCall, DecodeElementsCall),
		bodyOf("elements", func(t *rapid.T) ElementsPage {
			p := ElementsPage{More: rapid.Bool().Draw(t, "more")}
			for range rapid.IntRange(0, 3).Draw(t, "elements") {
				p.Elements = append(p.Elements, Element{
					Path: genPath(t), Value: genBytes(t, "value", true), Position: genString(t, "position"), Version: genVersion(t),
					Origin: genString(t, "origin"), Modified: rapid.Int64().Draw(t, "modified"), Expires: rapid.Int64().Draw(t, "expires"),
					Ephemeral: rapid.Bool().Draw(t, "ephemeral"),
				})
			}
			return p
		}, AppendElements, DecodeElements),
	}
}

// TestTypeBodies: what is encoded is decoded, no prefix of it is, and fields that are not
// known yet are passed over.
func TestTypeBodies(t *testing.T) {
	for _, kind := range typeBodies() {
		t.Run(kind.name, rapid.MakeCheck(func(t *rapid.T) {
			want := kind.make(t)
			b := kind.append(want)
			if got, err := kind.decode(b); err != nil || !reflect.DeepEqual(got, want) {
				t.Fatalf("got %+v, %v; want %+v", got, err, want)
			}
			n := rapid.IntRange(0, len(b)-1).Draw(t, "length")
			if _, err := kind.decode(b[:n:n]); !errors.Is(err, ErrFrame) {
				t.Fatalf("%d of %d bytes: got %v", n, len(b), err)
			}
			later := append([]byte{b[0] + 1}, b[1:]...) // a short array with one field more
			if got, err := kind.decode(AppendBin(later, "new")); err != nil || !reflect.DeepEqual(got, want) {
				t.Fatalf("with a field more: got %+v, %v; want %+v", got, err, want)
			}
		}))
	}
}

func FuzzDecodeTypes(f *testing.F) {
	f.Add(AppendUpdate(nil, &UpdateCall{Changes: []Change{{Verb: 1, Key: "a", Path: []string{"b"}, Value: []byte("v")}}}))
	f.Add(AppendElements(nil, &ElementsPage{Elements: []Element{{Path: []string{"a"}, Value: []byte("v")}}}))
	f.Add([]byte{0x94, 0, 0xc4, 0, 0, 0xdd, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, kind := range typeBodies() {
			v, err := kind.decode(b)
			if err != nil {
				if !errors.Is(err, ErrFrame) {
					t.Errorf("%s: got %v", kind.name, err)
				}
				continue
			}
			if again, err := kind.decode(kind.append(v)); err != nil || !reflect.DeepEqual(again, v) {
				t.Errorf("%s, encoded again: got %+v, %v; want %+v", kind.name, again, err, v)
			}
		}
	})
}
