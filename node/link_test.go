package node

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func TestSplitFrame(t *testing.T) {
	long := strings.Repeat("n", 255)
	for _, c := range []struct {
		name    string
		frame   []byte
		ks      string
		payload []byte
		err     error
	}{
		{"empty", nil, "", nil, errFrame},
		{"short", []byte("\x03ab"), "", nil, errFrame},
		{"no payload", []byte("\x02ab"), "ab", []byte{}, nil},
		{"payload", []byte("\x02abcd"), "ab", []byte("cd"), nil},
		{"longest name", append([]byte{255}, long+"p"...), long, []byte("p"), nil},
		{"longest name missing", append([]byte{255}, long[1:]...), "", nil, errFrame},
	} {
		t.Run(c.name, func(t *testing.T) {
			ks, payload, err := splitFrame(c.frame)
			if ks != c.ks || !bytes.Equal(payload, c.payload) || !errors.Is(err, c.err) {
				t.Errorf("got %q, %q, %v", ks, payload, err)
			}
		})
	}
}
