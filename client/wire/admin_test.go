package wire

import (
	"errors"
	"testing"

	"pgregory.net/rapid"
)

func TestAdminRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := AdminCall{
			Op: AdminOp(rapid.Byte().Draw(t, "op")), Keyspace: genString(t, "keyspace"), Server: genString(t, "server"), Mode: genString(t, "mode"),
			Voters: rapid.Uint64().Draw(t, "voters"), Quota: rapid.Uint64().Draw(t, "quota"),
		}
		b := AppendAdmin(nil, &want)
		var got AdminCall
		if err := DecodeAdmin(b, &got); err != nil || got != want {
			t.Fatalf("got %+v, %v; want %+v", got, err, want)
		}
		n := rapid.IntRange(0, len(b)-1).Draw(t, "length")
		if err := DecodeAdmin(b[:n:n], &got); !errors.Is(err, ErrFrame) {
			t.Fatalf("%d of %d bytes: got %v", n, len(b), err)
		}
	})
}
