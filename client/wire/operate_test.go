package wire

import (
	"bytes"
	"errors"
	"testing"

	"pgregory.net/rapid"
)

func TestHistoryRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := HistoryCall{
			Keyspace: genString(t, "keyspace"), Key: genString(t, "key"),
			Limit: rapid.Uint64().Draw(t, "limit"), Local: rapid.Bool().Draw(t, "local"),
		}
		b := AppendHistory(nil, &want)
		var got HistoryCall
		if err := DecodeHistory(b, &got); err != nil || got != want {
			t.Fatalf("got %+v, %v; want %+v", got, err, want)
		}
		n := rapid.IntRange(0, len(b)-1).Draw(t, "length")
		if err := DecodeHistory(b[:n:n], &got); !errors.Is(err, ErrFrame) {
			t.Fatalf("%d of %d bytes: got %v", n, len(b), err)
		}
	})
}

func TestSettingsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := SettingsCall{Keyspace: genString(t, "keyspace"), Change: []byte(genString(t, "change"))}
		b := AppendSettings(nil, &want)
		var got SettingsCall
		if err := DecodeSettings(b, &got); err != nil || got.Keyspace != want.Keyspace || !bytes.Equal(got.Change, want.Change) {
			t.Fatalf("got %+v, %v; want %+v", got, err, want)
		}
		n := rapid.IntRange(0, len(b)-1).Draw(t, "length")
		if err := DecodeSettings(b[:n:n], &got); !errors.Is(err, ErrFrame) {
			t.Fatalf("%d of %d bytes: got %v", n, len(b), err)
		}
	})
}
