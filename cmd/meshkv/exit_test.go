package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/meshkv/meshkv/client"
)

func TestExitCode(t *testing.T) {
	stopped, stop := context.WithCancelCause(context.Background())
	stop(errInterrupted)
	for _, c := range []struct {
		err  error
		ctx  context.Context
		code int
	}{
		{nil, nil, 0},
		{errors.New("anything"), nil, 1},
		{client.ErrTooLarge, nil, 1},
		{client.ErrUnknownOutcome, nil, 1},
		{client.ErrBadRequest, nil, 2},
		{usagef("x"), nil, 2},
		{client.ErrNotFound, nil, 3},
		{client.ErrConflict, nil, 4},
		{client.ErrSessionLost, nil, 4},
		{client.ErrNotHeld, nil, 4},
		{client.ErrPoolExhausted, nil, 4},
		{client.ErrFutureRevision, nil, 2},
		{client.ErrCompacted, nil, 1},
		{client.ErrFull, nil, 1},
		{client.ErrNeedsStrong, nil, 1},
		{client.ErrUnavailable, nil, 5},
		{client.ErrJoining, nil, 5},
		{client.ErrDraining, nil, 5},
		{client.ErrFrozen, nil, 4},
		{client.ErrOverloaded, nil, 5},
		{client.ErrNoQuorum, nil, 5},
		{&client.WriteConcernError{Acked: 1, Want: 2}, nil, 5},
		{errors.Join(client.ErrNoQuorum, context.DeadlineExceeded), nil, 5},
		{&childExit{code: 130}, nil, 130},
		{client.ErrDenied, nil, 6},
		{client.ErrTimeout, nil, 124},
		{context.DeadlineExceeded, nil, 124},
		{context.Canceled, stopped, 130},
		{client.ErrNotFound, stopped, 3}, // it ended by itself before the signal was seen
		{errors.Join(client.ErrUnknownOutcome, context.DeadlineExceeded), nil, 124},
		{&failure{text: "step 3", cause: errTour}, nil, 1},
	} {
		ctx := c.ctx
		if ctx == nil {
			ctx = context.Background()
		}
		err := c.err
		if err != nil {
			err = fmt.Errorf("put: %w", err)
		}
		if got := exitCode(ctx, err); got != c.code {
			t.Errorf("%v: got %d, want %d", c.err, got, c.code)
		}
	}
}

func TestErrorLineIsOneLine(t *testing.T) {
	err := fmt.Errorf("put: \x1b[2J\r\nsecond\n\n%w", client.ErrUnavailable)
	line := errorLine(context.Background(), err)
	if strings.ContainsAny(line, "\n\r\x1b") {
		t.Errorf("got %q", line)
	}
	for _, want := range []string{"second", "not reachable", "--addr"} {
		if !strings.Contains(line, want) {
			t.Errorf("got %q, want it to say %q", line, want)
		}
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"plain":         "plain",
		"häuser 家":      "häuser 家",
		"a\nb":          `a\nb`,
		"\x1b[31m":      `\x1b[31m`,
		"\xff\xfe":      `\xff\xfe`,
		"\u202egnp":     `\u202egnp`,
		"'quoted\"\\ ":  "'quoted\"\\ ",
		"\ufffd really": "\ufffd really",
	} {
		if got := printable(in); got != want {
			t.Errorf("printable(%q): got %q, want %q", in, got, want)
		}
	}
}
