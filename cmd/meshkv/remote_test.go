package main

import (
	"testing"
	"time"
)

func TestTimeoutOfCalls(t *testing.T) {
	for given, want := range map[time.Duration]time.Duration{0: never, time.Minute: time.Minute, time.Millisecond: time.Millisecond} {
		a := newApp(nil, nil, nil, nil)
		a.timeout = given
		if got := a.dialOptions().Timeout; got != want {
			t.Errorf("--timeout %v: got %v, want %v", given, got, want)
		}
	}
}
