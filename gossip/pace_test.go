package gossip

import (
	"testing"
	"time"
)

// A keyspace whose clock is an hour behind that of another, since it was opened
// after the wall clock was put back, earns tokens, too.
func TestPaceAfterAClockThatStepsBack(t *testing.T) {
	p := NewSessionPace(Limits{SessionBytes: 1000})
	now := time.Unix(1_800_000_000, 0).UnixNano()
	p.Ready(now)
	p.Spend(1000)
	now -= int64(time.Hour)
	p.Ready(now)
	if !p.Ready(now + int64(time.Second)) {
		t.Error("nothing earned in a second")
	}
}
