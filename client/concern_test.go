package client

import (
	"errors"
	"testing"
)

func TestAckPolicies(t *testing.T) {
	for _, tc := range []struct {
		text    string
		policy  AckPolicy
		members int
		need    int
		waits   bool
	}{
		{"local", AcksLocal, 5, 1, false},
		{"1", 1, 5, 1, false},
		{"2", 2, 5, 2, true},
		{"4096", 4096, 5, 4096, true},
		{"quorum", AcksQuorum, 1, 1, true},
		{"quorum", AcksQuorum, 2, 2, true},
		{"quorum", AcksQuorum, 3, 2, true},
		{"quorum", AcksQuorum, 4, 3, true},
		{"all", AcksAll, 4, 4, true},
	} {
		p, err := ParseAcks(tc.text)
		if err != nil || p != tc.policy || p.String() != tc.text || p.Check() != nil {
			t.Errorf("%s: %v, %v", tc.text, p, err)
		}
		if got := p.Need(tc.members); got != tc.need {
			t.Errorf("%s of %d: %d members, want %d", tc.text, tc.members, got, tc.need)
		}
		if p.Waits() != tc.waits {
			t.Errorf("%s waits: %v", tc.text, p.Waits())
		}
		if got := AcksOf(acksNumber(p)); got != p {
			t.Errorf("%s over the wire: %v", tc.text, got)
		}
	}
	for _, bad := range []string{"0", "-1", "most", "4097", "1e3", " 1"} {
		if _, err := ParseAcks(bad); !errors.Is(err, ErrBadRequest) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	for _, u := range []uint64{MaxAcks + 3, 1 << 63, 1<<64 - 1} {
		if AcksOf(u).Check() == nil {
			t.Errorf("%d is a policy", u)
		}
	}
}
