package wire

import "time"

// The bodies of Update, View and Elements requests and of their replies: arrays, to
// which fields can be added at the end. A View and an Elements are answered by a Document.

// An UpdateCall is the body of an Update request.
type UpdateCall struct {
	Flags   Flags  // Durable
	After   string // a token; empty: none
	Acks    uint64 // 0: local
	Changes []Change
}

// A Change is a client.Change.
type Change struct {
	Verb  uint8
	Key   string
	Path  []string
	Value []byte // when decoded, part of the body
	N     int64
	Bound int64
	To    string
	TTL   time.Duration
	Flags Flags // Ephemeral
}

const (
	updateFields = 4
	changeFields = 9
)

// AppendUpdate appends u.
func AppendUpdate(b []byte, u *UpdateCall) []byte {
	b = AppendArray(b, updateFields)
	b = AppendUint(b, uint64(u.Flags))
	b = AppendBin(b, u.After)
	b = AppendUint(b, u.Acks)
	b = AppendArray(b, len(u.Changes))
	for i := range u.Changes {
		c := &u.Changes[i]
		b = AppendArray(b, changeFields)
		b = AppendUint(b, uint64(c.Verb))
		b = AppendBin(b, c.Key)
		b = appendPath(b, c.Path)
		b = appendValue(b, c.Value)
		b = AppendInt(b, c.N)
		b = AppendInt(b, c.Bound)
		b = AppendBin(b, c.To)
		b = AppendInt(b, int64(c.TTL))
		b = AppendUint(b, uint64(c.Flags))
	}
	return b
}

// DecodeUpdate reads what AppendUpdate wrote. The values are part of body.
func DecodeUpdate(body []byte, u *UpdateCall) error {
	d := NewDecoder(body)
	extra := d.Fields(updateFields)
	*u = UpdateCall{Flags: Flags(d.Uint()), After: d.Str(), Acks: d.Uint()}
	for n := d.Array(); n > 0 && d.err == nil; n-- {
		more := d.Fields(changeFields)
		u.Changes = append(u.Changes, Change{
			Verb: uint8(min(d.Uint(), 255)), Key: d.Str(), Path: d.path(), Value: d.Bin(), N: d.Int(), Bound: d.Int(),
			To: d.Str(), TTL: time.Duration(d.Int()), Flags: Flags(d.Uint()),
		})
		d.Skip(more, 0)
	}
	d.Skip(extra, 0)
	return d.End()
}

func appendPath(b []byte, path []string) []byte {
	if path == nil {
		return AppendNil(b)
	}
	b = AppendArray(b, len(path))
	for _, p := range path {
		b = AppendBin(b, p)
	}
	return b
}

func (d *Decoder) path() []string {
	if d.Nil() {
		return nil
	}
	path := []string{}
	for n := d.Array(); n > 0 && d.err == nil; n-- {
		path = append(path, d.Str())
	}
	return path
}

// A ViewCall is the body of a View request.
type ViewCall struct {
	Key   string
	After string // a token; empty: none
}

const viewCallFields = 2

// AppendViewCall appends v.
func AppendViewCall(b []byte, v *ViewCall) []byte {
	b = AppendArray(b, viewCallFields)
	b = AppendBin(b, v.Key)
	return AppendBin(b, v.After)
}

// DecodeViewCall reads what AppendViewCall wrote.
func DecodeViewCall(body []byte, v *ViewCall) error {
	d := NewDecoder(body)
	extra := d.Fields(viewCallFields)
	*v = ViewCall{Key: d.Str(), After: d.Str()}
	d.Skip(extra, 0)
	return d.End()
}

// A KeyView is a client.View; its key is that of the request.
type KeyView struct {
	Type     string
	Version  Version
	Modified int64 // Unix nanoseconds, 0 for none
	Len      uint64
	Number   int64
	Enabled  bool
	Bound    int64
	Rights   int64
}

const viewFields = 9

// AppendView appends v.
func AppendView(b []byte, v *KeyView) []byte {
	b = AppendArray(b, viewFields)
	b = AppendBin(b, v.Type)
	b = appendVersion(b, v.Version)
	b = AppendInt(b, v.Modified)
	b = AppendUint(b, v.Len)
	b = AppendInt(b, v.Number)
	b = AppendBool(b, v.Enabled)
	b = AppendInt(b, v.Bound)
	return AppendInt(b, v.Rights)
}

// DecodeView reads what AppendView wrote.
func DecodeView(body []byte, v *KeyView) error {
	d := NewDecoder(body)
	extra := d.Fields(viewFields)
	*v = KeyView{
		Type: d.Str(), Version: Version{d.Uint(), d.Uint()}, Modified: d.Int(), Len: d.Uint(), Number: d.Int(),
		Enabled: d.Bool(), Bound: d.Int(), Rights: d.Int(),
	}
	d.Skip(extra, 0)
	return d.End()
}

// An ElementsCall is the body of an Elements request.
type ElementsCall struct {
	Key   string
	Type  string // a client.Type; empty: any that has elements
	Under []string
	After string // a position
	Limit uint64 // 0: none
	Seen  string // a token; empty: none
}

const elementsCallFields = 6

// AppendElementsCall appends e.
func AppendElementsCall(b []byte, e *ElementsCall) []byte {
	b = AppendArray(b, elementsCallFields)
	b = AppendBin(b, e.Key)
	b = AppendBin(b, e.Type)
	b = appendPath(b, e.Under)
	b = AppendBin(b, e.After)
	b = AppendUint(b, e.Limit)
	return AppendBin(b, e.Seen)
}

// DecodeElementsCall reads what AppendElementsCall wrote.
func DecodeElementsCall(body []byte, e *ElementsCall) error {
	d := NewDecoder(body)
	extra := d.Fields(elementsCallFields)
	*e = ElementsCall{Key: d.Str(), Type: d.Str(), Under: d.path(), After: d.Str(), Limit: d.Uint(), Seen: d.Str()}
	d.Skip(extra, 0)
	return d.End()
}

// An ElementsPage is some elements of a key, in order.
type ElementsPage struct {
	More     bool // there may be others after them
	Elements []Element
}

// An Element is a client.Element. Times are Unix nanoseconds, 0 for none.
type Element struct {
	Path      []string
	Value     []byte // when decoded, part of the body
	Position  string
	Version   Version
	Origin    string
	Modified  int64
	Expires   int64
	Ephemeral bool
}

const (
	pageFields    = 2
	elementFields = 9
)

// AppendElements appends p.
func AppendElements(b []byte, p *ElementsPage) []byte {
	b = AppendArray(b, pageFields)
	b = AppendBool(b, p.More)
	b = AppendArray(b, len(p.Elements))
	for i := range p.Elements {
		e := &p.Elements[i]
		b = AppendArray(b, elementFields)
		b = appendPath(b, e.Path)
		b = appendValue(b, e.Value)
		b = AppendBin(b, e.Position)
		b = appendVersion(b, e.Version)
		b = AppendBin(b, e.Origin)
		b = AppendInt(b, e.Modified)
		b = AppendInt(b, e.Expires)
		b = AppendBool(b, e.Ephemeral)
	}
	return b
}

// DecodeElements reads what AppendElements wrote. The values are part of body.
func DecodeElements(body []byte, p *ElementsPage) error {
	d := NewDecoder(body)
	extra := d.Fields(pageFields)
	*p = ElementsPage{More: d.Bool()}
	for n := d.Array(); n > 0 && d.err == nil; n-- {
		more := d.Fields(elementFields)
		p.Elements = append(p.Elements, Element{
			Path: d.path(), Value: d.Bin(), Position: d.Str(), Version: Version{d.Uint(), d.Uint()}, Origin: d.Str(),
			Modified: d.Int(), Expires: d.Int(), Ephemeral: d.Bool(),
		})
		d.Skip(more, 0)
	}
	d.Skip(extra, 0)
	return d.End()
}
