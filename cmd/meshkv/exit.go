package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/meshkv/meshkv/client"
)

// The exit codes of every command.
const (
	codeOK          = 0
	codeError       = 1
	codeUsage       = 2
	codeNotFound    = 3
	codeConflict    = 4
	codeUnavailable = 5
	codeDenied      = 6
	codeTimeout     = 124
	codeInterrupted = 130
)

var (
	errInterrupted = errors.New("interrupted")
	// errSilent ends a command with code 1 after it said everything itself.
	errSilent = errors.New("the command has already reported")
)

// A usageError is a mistake in the command line, the environment or the
// configuration file.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

func usagef(format string, args ...any) error {
	return &usageError{text: fmt.Sprintf(format, args...)}
}

// A failure says in what words the command failed and how it is to be
// classified.
type failure struct {
	text  string
	cause error
}

func (e *failure) Error() string { return e.text }
func (e *failure) Unwrap() error { return e.cause }

// exitCode is the code for a command that ended with err.
func exitCode(ctx context.Context, err error) int {
	var (
		usage *usageError
		child *childExit
	)
	switch {
	case err == nil:
		return codeOK
	case errors.As(err, &child):
		return child.code
	case errors.As(err, &usage):
		return codeUsage
	case interrupted(ctx, err):
		return codeInterrupted
	case errors.Is(err, client.ErrNoQuorum), errors.Is(err, client.ErrWriteConcern): // however long that was waited for
		return codeUnavailable
	case errors.Is(err, client.ErrTimeout), errors.Is(err, context.DeadlineExceeded):
		return codeTimeout
	case errors.Is(err, client.ErrUnknownOutcome):
		return codeError // neither "failed" nor "done": never one of the codes that scripts retry on
	case errors.Is(err, client.ErrBadRequest), errors.Is(err, client.ErrFutureRevision):
		return codeUsage
	case errors.Is(err, client.ErrNotFound):
		return codeNotFound
	case errors.Is(err, client.ErrConflict), errors.Is(err, client.ErrSessionLost), errors.Is(err, client.ErrNotHeld),
		errors.Is(err, client.ErrPoolExhausted), errors.Is(err, client.ErrFrozen):
		return codeConflict
	case errors.Is(err, client.ErrDenied):
		return codeDenied
	case errors.Is(err, client.ErrUnavailable), errors.Is(err, client.ErrJoining),
		errors.Is(err, client.ErrDraining), errors.Is(err, client.ErrOverloaded), errors.Is(err, client.ErrNotCaughtUp):
		return codeUnavailable
	}
	return codeError
}

// interrupted reports whether err is only the echo of a signal.
func interrupted(ctx context.Context, err error) bool {
	return errors.Is(err, errInterrupted) ||
		errors.Is(context.Cause(ctx), errInterrupted) && errors.Is(err, context.Canceled)
}

// errorLine is the one line that tells what went wrong and what to do about
// it; empty if nothing is left to say.
func errorLine(ctx context.Context, err error) string {
	var child *childExit
	if errors.Is(err, errSilent) || errors.As(err, &child) {
		return ""
	}
	if interrupted(ctx, err) {
		return "interrupted"
	}
	line := oneLine(err.Error())
	remedy := ""
	switch {
	case errors.Is(err, client.ErrUnknownOutcome):
		remedy = "the write may or may not have been applied: read the key before writing again"
	case errors.Is(err, client.ErrNoQuorum):
		remedy = "a majority of the keyspace's voters is needed: 'meshkv voters KS' lists them"
	case errors.Is(err, client.ErrNeedsStrong):
		remedy = "'meshkv keyspace create KS --mode strong' creates one"
	case errors.Is(err, client.ErrFull):
		remedy = "deletes still work"
	case errors.Is(err, client.ErrUnavailable):
		remedy = "is the node running? 'meshkv dev' starts one; --addr or MESHKV_ADDR names another"
	case errors.Is(err, client.ErrTimeout), errors.Is(err, context.DeadlineExceeded):
		remedy = "--timeout allows more time"
	case errors.Is(err, client.ErrJoining):
		remedy = "'meshkv wait' returns when the node is ready"
	}
	if remedy != "" {
		line += "; " + remedy
	}
	return line
}

// oneLine makes text from anywhere fit one line of a terminal.
func oneLine(s string) string {
	s = strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' }), " ")
	return strings.TrimSpace(printable(s))
}
