package main

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"
)

// A kind is what an operation on a register does.
type kind uint8

const (
	get          kind = iota
	put               // whatever is there
	create            // if nothing is there
	swap              // if the value is still the expected one, by PutOptions.IfVersion
	swapTxn           // the same as a transaction, which the client repeats under its Request
	remove            // whatever is there
	removeIfSame      // if the value is still the expected one
	kinds
)

var kindNames = [kinds]string{"get", "put", "create", "swap", "swap by txn", "delete", "delete if same"}

// An input is what a client asks of a register. No value is written twice, so that the
// version of a value and the value stand for each other.
type input struct {
	kind   kind
	value  string // to be written
	expect string // the value of the version that is expected
}

// An output is how it ended. An operation that had certainly no effect has none, and is
// not in the history.
type output struct {
	unknown  bool   // it may take effect at any time after its call, or never
	conflict bool   // the condition did not hold
	value    string // read; empty if there was none
	removed  bool   // there was something to delete
	revision uint64 // of what was read or changed; 0: none
}

// A register is the state of one key.
type register struct {
	value string // empty if there is none
	floor uint64 // no later change has a revision as low as this
}

// model is a register with conditions and revisions.
var model = porcupine.Model{
	Init: func() any { return register{} },
	Step: func(state, in, out any) (bool, any) {
		next, legal := step(state.(register), in.(input), out.(output))
		return legal, next
	},
	DescribeOperation: func(in, out any) string { return fmt.Sprintf("%s → %s", in.(input), out.(output)) },
	DescribeState:     func(state any) string { return fmt.Sprintf("%q@%d", state.(register).value, state.(register).floor) },
}

// step is the register after an operation, and whether it can have ended so.
func step(r register, in input, out output) (register, bool) {
	if in.kind == get {
		if out.value != r.value || out.revision < r.floor && out.value != "" {
			return r, false
		}
		r.floor = max(r.floor, out.revision)
		return r, true
	}
	holds := true
	switch in.kind {
	case create:
		holds = r.value == ""
	case swap, swapTxn, removeIfSame:
		holds = r.value == in.expect
	}
	switch {
	case out.unknown && !holds:
		return r, true
	case out.conflict:
		return r, !holds
	case !holds:
		return r, false
	}
	had := r.value != ""
	r.value = in.value
	switch {
	case out.unknown:
		return r, true
	case in.value == "" && out.removed != had:
		return r, false
	case in.value == "" && !had:
		return r, true
	case out.revision <= r.floor:
		return r, false
	}
	r.floor = out.revision
	return r, true
}

func (in input) String() string {
	text := kindNames[in.kind]
	if in.value != "" {
		text += " " + in.value
	}
	if in.expect != "" {
		text += " in place of " + in.expect
	}
	return text
}

func (o output) String() string {
	switch {
	case o.unknown:
		return "unknown"
	case o.conflict:
		return "conflict"
	case o.revision == 0:
		return "nothing there"
	case o.value != "":
		return fmt.Sprintf("%s of revision %d", o.value, o.revision)
	}
	return fmt.Sprintf("done in revision %d", o.revision)
}

// A history is what was done to all registers. Safe for concurrent use.
type history struct {
	start time.Time

	mu       sync.Mutex // protects the fields below
	keys     map[string][]porcupine.Operation
	outcomes [kinds]map[string]int
}

func newHistory() *history {
	h := &history{start: time.Now(), keys: make(map[string][]porcupine.Operation)}
	for k := range h.outcomes {
		h.outcomes[k] = make(map[string]int)
	}
	return h
}

// now is the time since the start, by the monotonic clock.
func (h *history) now() int64 { return int64(time.Since(h.start)) }

// add notes an operation that ended now.
func (h *history) add(client int, key string, in input, out output, call int64) {
	end := h.now()
	if out.unknown {
		end = math.MaxInt64
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.keys[key] = append(h.keys[key], porcupine.Operation{ClientId: client, Input: in, Output: out, Call: call, Return: end})
}

func (h *history) count(k kind, outcome string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.outcomes[k][outcome]++
}

// checkTime bounds the search of one key.
const checkTime = 20 * time.Second

// problems are the keys that are not linearizable, and those of which the checker could not
// tell.
func (h *history) problems() (bad, undecided []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, key := range sortedKeys(h.keys) {
		switch porcupine.CheckOperationsTimeout(model, h.keys[key], checkTime) {
		case porcupine.Illegal:
			bad = append(bad, fmt.Sprintf("%s is not linearizable:\n%s", key, describe(h.keys[key])))
		case porcupine.Unknown:
			undecided = append(undecided, fmt.Sprintf("%s: %d operations, not decided within %v", key, len(h.keys[key]), checkTime))
		}
	}
	return bad, undecided
}

func describe(ops []porcupine.Operation) (text string) {
	sorted := slices.SortedFunc(slices.Values(ops), func(a, b porcupine.Operation) int { return cmp.Compare(a.Call, b.Call) })
	for _, op := range sorted {
		end := "never"
		if op.Return != math.MaxInt64 {
			end = time.Duration(op.Return).String()
		}
		text += fmt.Sprintf("    client %d, %v to %s: %s\n", op.ClientId, time.Duration(op.Call), end, model.DescribeOperation(op.Input, op.Output))
	}
	return text
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
