package model

import (
	"flag"
	"math/rand/v2"
	"reflect"
	"testing"
)

var (
	schedules = flag.Int("schedules", defaultSchedules, "random schedules to run")
	steps     = flag.Int("steps", 400, "steps of each")
	seed      = flag.Uint64("seed", 0, "seed of the first schedule, the next ones follow; 0 takes a fresh one")
)

// firstSeed is the flag, or a fresh seed.
func firstSeed() uint64 {
	if *seed != 0 {
		return *seed
	}
	return rand.Uint64N(1e12) + 1
}

func TestSchedules(t *testing.T) {
	first := firstSeed()
	n := *schedules
	if testing.Short() {
		n = min(n, 200)
	}
	t.Logf("%d schedules of %d steps from seed %d", n, *steps, first)
	var all tally
	sum := reflect.ValueOf(&all).Elem()
	for i := range n {
		s := first + uint64(i)
		happened, v := run(s, *steps, bugNone)
		if v != nil {
			t.Fatalf("schedule %d, step %d: %s\nreproduce: go test ./crdt/model -run TestSchedules -schedules 1 -steps %d -seed %d",
				i+1, v.step, v.text, *steps, s)
		}
		for f := range sum.NumField() {
			sum.Field(f).SetInt(sum.Field(f).Int() + reflect.ValueOf(happened).Field(f).Int())
		}
	}
	t.Logf("no violation; in all: %+v", all)
	for f := range sum.NumField() {
		if n >= 200 && *steps >= 400 && sum.Field(f).Int() == 0 {
			t.Errorf("%s never happened", sum.Type().Field(f).Name)
		}
	}
}

// The same seed is the same schedule.
func TestScheduleReplays(t *testing.T) {
	first := firstSeed()
	for i := range uint64(20) {
		a, _ := run(first+i, *steps, bugNone)
		if b, _ := run(first+i, *steps, bugNone); a != b {
			t.Fatalf("seed %d: %+v, then %+v", first+i, a, b)
		}
	}
}

// A bug is a draft of how the rules may be used that failed. The schedules that
// follow it must be caught.
type bug string

const (
	bugNone              bug = ""
	bugCellsLater        bug = "a session's S taken later than its C"
	bugClockLater        bug = "a session's C taken later than its S"
	bugDropEarly         bug = "removals applied before a session's end"
	bugConcludeEarly     bug = "an interrupted session counted as completed"
	bugHideProvisional   bug = "provisional cells offered to nobody"
	bugSessionSurvives   bug = "a session that survives a restart"
	bugKeepInc           bug = "an Inc kept at a restart"
	bugKeepCleanInc      bug = "an Inc kept after a clean stop"
	bugSeqRestarts       bug = "a sequence that restarts after leaving"
	bugLeaveAtOnce       bug = "leaving without a completed session"
	bugLocalExpiry       bug = "expiry by the local clock"
	bugCloseEvent        bug = "closing as an event"
	bugClockWithoutCells bug = "a damaged store that keeps C without its S"
	bugForgetPending     bug = "D not persisted"
	bugCountAnswers      bug = "a member that has published nothing is not asked"
	bugSkipClosed        bug = "a member whose incarnation is closed counts as gone while it is listed"
	bugSurveyEmpty       bug = "a replica takes part that has not met a member since it began with nothing"
)
