package keyspace

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/meshkv/meshkv/client"
)

// A Schema is a JSON Schema that was read. Safe for concurrent use.
type Schema struct{ schema *jsonschema.Schema }

// schemaURL is what references of a schema are relative to; nothing is loaded from there.
const schemaURL = "meshkv:schema"

// ReadSchema reads a JSON Schema, of draft 2020-12 unless it says otherwise. It may
// refer to itself and to the drafts, and to nothing else. Formats are annotations, as
// the draft has it. The time that a check takes is up to whoever wrote the schema.
func ReadSchema(text string) (*Schema, error) {
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("%w: the schema is no JSON: %w", client.ErrBadRequest, err)
	}
	if !sane(doc) {
		return nil, fmt.Errorf("%w: the schema has a number that is too long or too large", client.ErrBadRequest)
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.UseLoader(noLoader{})
	if err := c.AddResource(schemaURL, doc); err != nil {
		return nil, fmt.Errorf("%w: schema: %w", client.ErrBadRequest, err)
	}
	s, err := c.Compile(schemaURL)
	if err != nil {
		return nil, fmt.Errorf("%w: no JSON Schema: %w", client.ErrBadRequest, err)
	}
	return &Schema{s}, nil
}

// noLoader keeps schemas from reading files.
type noLoader struct{}

func (noLoader) Load(string) (any, error) {
	return nil, errors.New("a schema can refer to itself and to the drafts only: copy what it needs into it")
}

// Check tells whether a value conforms. The error names the place in the schema, and
// nothing of the value.
func (s *Schema) Check(value []byte) error {
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(value))
	if err != nil {
		return fmt.Errorf("%w: the keyspace has a schema, and the value is no JSON", client.ErrBadRequest)
	}
	if !sane(v) {
		return fmt.Errorf("%w: the value has a number that is too long or too large for the keyspace's schema", client.ErrBadRequest)
	}
	err = s.schema.Validate(v)
	if err == nil {
		return nil
	}
	var invalid *jsonschema.ValidationError
	if !errors.As(err, &invalid) {
		return fmt.Errorf("%w: the value does not conform to the keyspace's schema", client.ErrBadRequest)
	}
	for len(invalid.Causes) > 0 {
		invalid = invalid.Causes[0]
	}
	_, at, _ := strings.Cut(invalid.SchemaURL, "#")
	place := strings.Join(append([]string{"#" + at}, invalid.ErrorKind.KeywordPath()...), "/")
	return fmt.Errorf("%w: the value does not conform to the keyspace's schema at %s", client.ErrBadRequest, place)
}

// maxNumber bounds the digits of a number, and its exponent: the validator computes with exact fractions, and
// takes minutes for others, or fails with a panic.
const maxNumber = 400

// sane reports whether v, which was read as JSON, has only numbers that the validator can take.
func sane(v any) bool {
	switch v := v.(type) {
	case json.Number:
		_, exponent, has := strings.Cut(strings.ToLower(string(v)), "e")
		n, err := strconv.Atoi(exponent)
		return len(v) <= maxNumber && (!has || err == nil && -maxNumber <= n && n <= maxNumber)
	case []any:
		return !slices.ContainsFunc(v, func(e any) bool { return !sane(e) })
	case map[string]any:
		for _, e := range v {
			if !sane(e) {
				return false
			}
		}
	}
	return true
}
