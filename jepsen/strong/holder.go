//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/meshkv/meshkv/client"
	"golang.org/x/sys/unix"
)

// holderEnv makes this program a holder: a process that takes a lock again and again, so
// that it can be stopped while it holds. Its value is the holderSpec in JSON.
const holderEnv = "MESHKV_JEPSEN_HOLDER"

type holderSpec struct {
	Name, API, Keyspace, Lock string
	TTL                       time.Duration
}

// A report is a line that a holder tells its parent. Times are of the monotonic clock that
// all processes of the machine share.
type report struct {
	Kind   string // call, grant, write, late, end or error
	Claim  string // names the attempt; shown to others as the value of the lock
	Token  uint64 `json:",omitempty"`
	At     int64  // ns; of a write: before the holder looked whether the lock was lost
	Detail string `json:",omitempty"`
}

func monotonic() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(fmt.Sprintf("the monotonic clock: %v", err)) // there is no Linux without
	}
	return ts.Nano()
}

// holderMain is the life of a holder. It ends with its standard input.
func holderMain(spec string, in io.Reader, out io.Writer) error {
	var s holderSpec
	if err := json.Unmarshal([]byte(spec), &s); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	answers := make(chan string)
	go func() {
		defer cancel()
		for lines := bufio.NewScanner(in); lines.Scan(); {
			select {
			case answers <- lines.Text():
			case <-ctx.Done():
				return
			}
		}
	}()
	o := &client.DialOptions{MaxBackoff: 100 * time.Millisecond, PingInterval: time.Second}
	c, err := client.Dial(ctx, s.API, o)
	for err != nil && ctx.Err() == nil {
		pause(ctx, 50*time.Millisecond)
		c, err = client.Dial(ctx, s.API, o)
	}
	if err != nil {
		return err
	}
	defer c.Close()
	h, err := c.Strong(ctx, s.Keyspace)
	if err != nil {
		return err
	}
	tell := json.NewEncoder(out)
	for n := 0; ctx.Err() == nil; n++ {
		claim := fmt.Sprintf("%s/%d", s.Name, n)
		if err := hold(ctx, h, s, claim, tell, answers); err != nil {
			tell.Encode(report{Kind: "error", Claim: claim, At: monotonic(), Detail: err.Error()})
			pause(ctx, 50*time.Millisecond)
		}
	}
	return nil
}

// hold takes the lock once and writes to the resource under it.
func hold(ctx context.Context, h client.Strong, s holderSpec, claim string, tell *json.Encoder, answers <-chan string) error {
	tell.Encode(report{Kind: "call", Claim: claim, At: monotonic()})
	waiting, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	lock, err := h.Lock(waiting, s.Lock, &client.LockOptions{TTL: s.TTL, Value: []byte(claim)})
	if err != nil {
		return err
	}
	token := uint64(lock.Token())
	r := report{Claim: claim, Token: token, At: monotonic()}
	r.Kind = "grant"
	tell.Encode(r)
	lost := false
	for n := 0; n < 5 && !lost; n++ {
		r.Kind, r.At = "write", monotonic()
		select {
		case <-lock.Lost():
			// What a program does that does not look: the resource must refuse it, once
			// another has written.
			r.Kind, lost = "late", true
		default:
		}
		tell.Encode(r)
		select {
		case <-answers:
		case <-ctx.Done():
			return ctx.Err()
		}
		pause(ctx, 20*time.Millisecond)
	}
	unlocking, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
	defer cancel()
	err = lock.Unlock(unlocking)
	tell.Encode(report{Kind: "end", Claim: claim, Token: token, At: monotonic()})
	if lost && errors.Is(err, client.ErrSessionLost) {
		return nil
	}
	return err
}

// beHolder is what main does first: it returns unless this process is a holder.
func beHolder() {
	spec, ok := os.LookupEnv(holderEnv)
	if !ok {
		return
	}
	if err := holderMain(spec, os.Stdin, os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "holder: %v\n", err)
		os.Exit(1)
	}
	os.Exit(0)
}
