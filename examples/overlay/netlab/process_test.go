//go:build linux

package netlab

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	fields := " 1 1 1 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 9876 1 1"
	start, state, err := parseStat("77 (a) (b c) S" + fields)
	if err != nil || start != 9876 || state != 'S' {
		t.Errorf("parseStat = %d, %c, %v, want 9876, S", start, state, err)
	}
	for _, broken := range []string{"", "77 (a", "77 (a) S 1 2"} {
		if _, _, err := parseStat(broken); err == nil {
			t.Errorf("parseStat(%q) is no error", broken)
		}
	}
}

func TestProcessIdentity(t *testing.T) {
	cmd := exec.Command("sleep", "600")
	if err := cmd.Start(); err != nil {
		t.Skipf("SKIPPED: no process can be started: %v", err)
	}
	defer cmd.Process.Kill()
	p := Process{PID: cmd.Process.Pid, Cmd: "sleep 600"}
	var err error
	if p.Start, _, err = procStat(p.PID); err != nil {
		t.Fatal(err)
	}
	if !p.Alive() {
		t.Fatal("a running process is not alive")
	}
	for name, other := range map[string]Process{
		"a recycled pid":      {p.PID, p.Start + 1, p.Cmd},
		"another command":     {p.PID, p.Start, "sleep 601"},
		"nothing was started": {},
		"init":                {1, 0, ""},
	} {
		if other.Alive() {
			t.Errorf("%s counts as alive", name)
		}
		if err := other.Signal(syscall.SIGKILL); !errors.Is(err, os.ErrProcessDone) {
			t.Errorf("%s: Signal = %v, want ErrProcessDone", name, err)
		}
	}
	if !p.Alive() {
		t.Fatal("a signal for another process ended this one")
	}
	if err := p.End(context.Background(), time.Second); err != nil || p.Alive() {
		t.Errorf("End = %v, alive %v", err, p.Alive())
	}
	if err := p.End(context.Background(), time.Second); err != nil {
		t.Errorf("a second End: %v", err)
	}
}
