package keeper

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/meshkv/meshkv/consensus/machine"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// at is so many milliseconds after start.
func at(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }

// due fails unless k has something to do at ms, and gives it.
func due(t *testing.T, k *Keeper, ms int, want Effects) {
	t.Helper()
	next, ok := k.NextDue()
	if !ok || !next.Equal(at(ms)) {
		t.Fatalf("due at %v, %v, want %d ms", next.Sub(start), ok, ms)
	}
	if got := k.Tick(at(ms - 1)); !reflect.DeepEqual(got, Effects{}) {
		t.Fatalf("too early: %+v", got)
	}
	if got := k.Tick(at(ms)); !reflect.DeepEqual(got, want) {
		t.Fatalf("got %+v, want %+v", got, want)
	}
}

func never(t *testing.T, k *Keeper) {
	t.Helper()
	if next, ok := k.NextDue(); ok {
		t.Fatalf("due at %v", next.Sub(start))
	}
}

func heard(t *testing.T, k *Keeper, ms int, id machine.LeaseID, want Ack) {
	t.Helper()
	if ttl, got := k.KeepAlive(at(ms), id); got != want || (ttl == 0) != (want == Gone) {
		t.Fatalf("got %v, %d, want %d", ttl, got, want)
	}
}

func left(id machine.LeaseID, ms uint64) Effects {
	return Effects{Checkpoint: []machine.Left{{ID: id, Left: ms}}}
}

func expired(ids ...machine.LeaseID) Effects { return Effects{Expire: ids} }

// A session that is heard in time costs nothing; one that is silent is checkpointed once
// and ends.
func TestSilentSessionEnds(t *testing.T) {
	k := New(start, nil)
	never(t, k)
	k.Granted(at(0), 7, 1000)
	heard(t, k, 400, 7, Alive)
	heard(t, k, 800, 7, Alive)
	due(t, k, 1300, left(7, 500))
	never(t, k) // until the outcome
	k.Applied(left(7, 500))
	due(t, k, 1800, expired(7))
	heard(t, k, 1801, 7, Gone)
	k.Ended(7)
	k.Applied(expired(7))
	never(t, k)
	heard(t, k, 1802, 7, Gone)
}

// A session that is heard after its checkpoint is cleared before it is acknowledged.
func TestCheckpointIsCleared(t *testing.T) {
	for name, heardAt := range map[string]int{"in flight": 550, "applied": 650} {
		t.Run(name, func(t *testing.T) {
			k := New(start, nil)
			k.Granted(at(0), 7, 1000)
			due(t, k, 500, left(7, 500))
			if heardAt == 550 {
				heard(t, k, 550, 7, Marked)
				k.Applied(left(7, 500))
			} else {
				k.Applied(left(7, 500))
				heard(t, k, 650, 7, Marked)
			}
			due(t, k, heardAt, left(7, 0))
			heard(t, k, 700, 7, Marked) // the clearing is not applied yet
			k.Applied(left(7, 0))
			heard(t, k, 750, 7, Alive)
			due(t, k, 1250, left(7, 500))
			k.Applied(left(7, 500))
			due(t, k, 1750, expired(7))
		})
	}
}

// What failed is given again after a pause that grows, and whoever waits for a clearing
// gets one.
func TestFailedIsGivenAgain(t *testing.T) {
	k := New(start, nil)
	k.Granted(at(0), 7, 10_000)
	due(t, k, 5000, left(7, 5000))
	k.Failed(at(5010), left(7, 5000))
	due(t, k, 5110, left(7, 4890))
	heard(t, k, 5120, 7, Marked)
	k.Failed(at(5130), left(7, 4890))
	due(t, k, 5330, left(7, 0))
	k.Failed(at(5330), left(7, 0))
	due(t, k, 5730, left(7, 0))
	k.Applied(left(7, 0))
	heard(t, k, 5740, 7, Alive)
	due(t, k, 10_740, left(7, 5000))
	k.Applied(left(7, 5000))
	due(t, k, 15_740, expired(7))
	for i, pause := range []int{100, 200, 400, 800, 1600, 3200, 5000, 5000} {
		ms := 20_000 * (i + 1)
		k.Failed(at(ms), expired(7))
		heard(t, k, ms, 7, Gone) // it could be revived, but its holder knows that it is over
		due(t, k, ms+pause, expired(7))
	}
	k.Ended(7)
	k.Failed(at(300_000), expired(7))
	never(t, k)
}

func TestTakingOver(t *testing.T) {
	k := New(start, []machine.Lease{{ID: 1, TTL: 1000}, {ID: 2, TTL: 2000, Left: 300}, {ID: 3, TTL: 2000, Left: 400}})
	heard(t, k, 100, 3, Marked)
	due(t, k, 100, left(3, 0))
	due(t, k, 300, expired(2))
	due(t, k, 500, left(1, 500))
	k.Applied(left(3, 0))
	due(t, k, 1100, left(3, 1000))
}

func TestLeftIsRoundedUp(t *testing.T) {
	k := New(start, nil)
	k.Granted(start.Add(time.Microsecond), 7, 1000)
	if got := k.Tick(at(600)); !reflect.DeepEqual(got, left(7, 401)) {
		t.Fatalf("got %+v", got)
	}
}

func TestDelays(t *testing.T) {
	k := New(start, nil)
	over := func(lock string, token machine.Token) Effects {
		return Effects{EndDelay: []machine.EndDelay{{Name: lock, Token: token}}}
	}
	k.Delay(at(0), "l", 5, 300)
	k.Delay(at(200), "l", 5, 300) // told twice
	k.Delay(at(0), "l", 6, 400)
	k.Delay(at(0), "m", 5, 500)
	due(t, k, 300, over("l", 5))
	k.Failed(at(320), over("l", 5))
	due(t, k, 400, over("l", 6))
	due(t, k, 420, over("l", 5))
	k.Applied(over("l", 5))
	k.Applied(over("l", 6))
	k.Applied(over("m", 5)) // by whomever
	never(t, k)
}

// There are thousands, which end together: a proposal takes machine.MaxExpired.
func TestEffectsAreBounded(t *testing.T) {
	var leases []machine.Lease
	for i := range 3000 {
		leases = append(leases, machine.Lease{ID: machine.LeaseID(i + 1), TTL: 1000})
	}
	k := New(start, leases)
	for i := range 2000 {
		k.Delay(start, fmt.Sprint(i), 1, 1000)
	}
	for _, ms := range []int{500, 1000} {
		var sizes [][3]int
		last := machine.LeaseID(0)
		for next, ok := k.NextDue(); ok && !next.After(at(ms)); next, ok = k.NextDue() {
			e := k.Tick(at(ms))
			sizes = append(sizes, [3]int{len(e.Checkpoint), len(e.Expire), len(e.EndDelay)})
			for _, id := range e.Expire {
				if id <= last {
					t.Fatalf("%d after %d", id, last)
				}
				last = id
			}
			k.Applied(e)
		}
		want := [][3]int{{1024, 0, 0}, {1024, 0, 0}, {952, 0, 0}}
		if ms == 1000 {
			want = [][3]int{{0, 0, 1024}, {0, 1024, 976}, {0, 1024, 0}, {0, 952, 0}}
		}
		if !reflect.DeepEqual(sizes, want) {
			t.Fatalf("at %d ms: got %v, want %v", ms, sizes, want)
		}
	}
	never(t, k)
	if len(k.sessions)+len(k.delays) > 0 {
		t.Fatalf("%d sessions and %d delays stay", len(k.sessions), len(k.delays))
	}
}

// BenchmarkKeepAlive hears 100,000 sessions in turn.
func BenchmarkKeepAlive(b *testing.B) {
	const sessions = 100_000
	k := New(start, nil)
	for i := range sessions {
		k.Granted(start, machine.LeaseID(i+1), 3_600_000)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		if _, ack := k.KeepAlive(start.Add(time.Duration(i)), machine.LeaseID(i%sessions+1)); ack != Alive {
			b.Fatal(ack)
		}
	}
}
