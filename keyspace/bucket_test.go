package keyspace

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// The bucket beside a model in whole thousandths of a token, which knows no floating
// point. The clock may stand still and run backwards.
func TestBucketBesideModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var b bucket
		var rate, milli, at int64 // the model: milli tokens at ms
		now := rapid.Int64Range(0, 5000).Draw(t, "begin")
		refill := func() {
			if passed := now - at; passed > 0 || passed < -1000 {
				milli, at = min(milli+rate*max(passed, 0), 1000*rate), now
			}
		}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 3).Draw(t, "step") {
			case 0:
				now = max(0, now+rapid.SampledFrom([]int64{0, 1, 7, 100, 999, 5000, -1, -999, -5000}).Draw(t, "passed"))
			case 1:
				next := rapid.Int64Range(0, 4).Draw(t, "rate")
				b.set(next, now)
				if next != rate {
					refill()
					if rate == 0 {
						milli = 1000 * next
					}
					rate = next
					milli = min(milli, 1000*rate)
				}
			default:
				n := rapid.Int64Range(1, 6).Draw(t, "n")
				wait, ok := b.take(n, now)
				want := true
				if rate > 0 {
					refill()
					if want = milli >= 1000*min(n, rate); want {
						milli -= 1000 * n
					}
				}
				if ok != want {
					t.Fatalf("take %d at %d: got %v, want %v; %d/1000 of %d tokens", n, now, ok, want, milli, rate)
				}
				if !ok && (wait <= 0 || wait > 12*time.Second) {
					t.Fatalf("wait %v for %d of %d a second, with %d/1000", wait, n, rate, milli)
				}
			}
		}
	})
}

// A clock that goes back a little gives nothing when it comes again; one that was put back
// far counts on from there.
func TestBucketClockBack(t *testing.T) {
	var b bucket
	b.set(10, 5000)
	b.take(10, 5000)
	for _, c := range []struct {
		at int64
		ok bool
	}{{4500, false}, {5000, false}, {4001, false}, {5099, false}, {5100, true}, {5100, false}, {1000, false}, {1099, false}, {1100, true}} {
		if _, ok := b.take(1, c.at); ok != c.ok {
			t.Errorf("at %d: got %v, want %v", c.at, ok, c.ok)
		}
	}
}

// What a second takes is the rate, whatever comes before it and however it is spread.
func TestBucketRate(t *testing.T) {
	var b bucket
	b.set(100, 0)
	taken := 0
	for ms := int64(0); ms < 10_000; ms++ {
		if _, ok := b.take(1, ms); ok {
			taken++
		}
	}
	if taken < 1099 || taken > 1100 { // a full bucket, and ten seconds
		t.Errorf("took %d in 10 s at 100/s", taken)
	}
}
