package mesh

import (
	"math"
	"strconv"
	"testing"
	"time"

	"github.com/meshkv/meshkv/crdt"
)

func TestRosterClaims(t *testing.T) {
	r := testRoster("m", 5)
	r.membership(epoch, member("a", 1, StatusAlive))
	r.linkUp(epoch, peer("a", 1), true)
	r.linkDown(epoch, "a")
	r.records["a"].nextDial = epoch.Add(time.Hour)
	for name, c := range map[string]claim{
		"the same process": {addr: "x:1", inc: 1},
		"the future":       {addr: "x:1", inc: math.MaxUint64},
		"this node":        {addr: "m:1", inc: 2},
	} {
		if r.claimed(epoch, "a", c) {
			t.Errorf("%s is taken", name)
		}
	}
	if r.claimed(epoch, "nobody", claim{addr: "x:1", inc: 2}) {
		t.Error("of nobody")
	}
	if !r.claimed(epoch, "a", claim{addr: "new:1", inc: 2}) || r.claimed(epoch, "a", claim{addr: "x:1", inc: 2}) {
		t.Error("taken once")
	}
	now := epoch
	for range claimTries {
		expect(t, "dial", kinds(r.tick(now, 9)), []string{"dial new:1"})
		expect(t, "one at a time", kinds(r.tick(now.Add(time.Minute), 9)), nil)
		r.dialed(now, "a", false)
		r.records["a"].nextDial = epoch.Add(time.Hour)
		now = now.Add(r.timing.Redial)
	}
	expect(t, "given up", kinds(r.tick(now, 9)), nil)
	if !r.claimed(now, "a", claim{addr: "newer:1", inc: 3}) {
		t.Error("a newer one is not taken")
	}
	r.membership(now, member("a", 3, StatusAlive))
	r.records["a"].nextDial = now.Add(time.Hour)
	expect(t, "membership knows it", kinds(r.tick(now.Add(time.Second), 9)), nil)
}

// An incarnation of the far future in a serf tag must not supersede the processes of that name.
func TestRosterAbsurdIncarnation(t *testing.T) {
	r := testRoster("m", 5)
	r.membership(epoch, member("a", 1, StatusAlive))
	r.linkUp(epoch, peer("a", 1), true)
	drain(r)
	r.membership(epoch, member("a", math.MaxUint64, StatusAlive))
	expect(t, "forged", drain(r), nil)
	expect(t, "the process itself is asked", kinds(r.tick(epoch, 9)), []string{"join a:1"})
	born := uint64(crdt.NewInc(epoch.Add(time.Hour).UnixMilli(), 7))
	r.membership(epoch, member("b", born, StatusAlive))
	expect(t, "a clock that is wrong", drain(r), []string{"b alive 0"})
	r.tick(epoch.Add(time.Hour), 9)
	expect(t, "until it is right", drain(r), []string{"b alive " + strconv.FormatUint(born, 10)})

	for text, want := range map[string]bool{"0": true, "x!": true, "": true, "zzzzzzzzzzzzzzzzz": true, "2": false, strconv.FormatUint(born, 36): true} {
		if got := absurd(epoch, map[string]string{tagInc: text}); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
	if absurd(epoch, nil) {
		t.Error("a stock node is absurd")
	}
}
