package main

import (
	"unicode/utf8"

	"github.com/meshkv/meshkv/client"
)

// A valueJSON is a value as text, or as bytes if it is not UTF-8.
type valueJSON struct {
	Value    *string `json:"value,omitempty"`
	ValueB64 []byte  `json:"value_b64,omitempty"`
}

func textOrBytes(v []byte) valueJSON {
	if utf8.Valid(v) {
		text := string(v)
		return valueJSON{Value: &text}
	}
	return valueJSON{ValueB64: v}
}

type leaderJSON struct {
	Known   bool `json:"known"`
	Elected bool `json:"elected"`
	valueJSON
	Token   client.FencingToken `json:"token"`
	Session client.SessionID    `json:"session"`
}
