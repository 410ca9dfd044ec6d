package keyspace

import "time"

// A bucket limits a rate: it holds tokens, of which each write takes one and which come
// back at the rate, up to what comes in a second. Pure; not safe for concurrent use.
// The zero value has no limit.
type bucket struct {
	rate   int64 // tokens a second; 0: no limit
	tokens float64
	at     int64 // ms, when tokens was right
}

// set changes the rate. A bucket that had no limit begins full.
func (b *bucket) set(rate, nowMs int64) {
	if rate == b.rate {
		return
	}
	b.refill(nowMs)
	if b.rate == 0 {
		b.tokens = float64(rate)
	}
	b.rate = rate
	b.tokens = min(b.tokens, float64(rate))
}

func (b *bucket) refill(nowMs int64) {
	// A clock that was put back gives nothing until it is past where it was, or a second
	// later, so that it cannot close the bucket for long.
	if passed := nowMs - b.at; passed > 0 || passed < -1000 {
		b.tokens = min(b.tokens+float64(b.rate)*float64(max(passed, 0))/1000, float64(b.rate))
		b.at = nowMs
	}
}

// take takes n tokens, or none and says when there will be as many. More than a bucket
// holds are taken from a full one, which then owes them.
func (b *bucket) take(n, nowMs int64) (wait time.Duration, ok bool) {
	if b.rate == 0 {
		return 0, true
	}
	b.refill(nowMs)
	if lacking := float64(min(n, b.rate)) - b.tokens; lacking > 1e-6 {
		return time.Duration(lacking / float64(b.rate) * float64(time.Second)), false
	}
	b.tokens -= float64(n)
	return 0, true
}
