package peer

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// ErrTimeout: a peer did not answer in time; it is killed.
var ErrTimeout = errors.New("the peer did not answer in time")

// A Process is a running peer process. Not safe for concurrent use.
type Process struct {
	cmd     *exec.Cmd
	in      io.WriteCloser
	replies chan *Reply // closed at the end of its output
}

// Run starts the program in the network namespace netns. It dies with us. What
// it logs goes to the file log.
func Run(netns, log string, program ...string) (*Process, error) {
	args := append([]string{"netns", "exec", netns}, program...)
	p := &Process{cmd: exec.Command("ip", args...), replies: make(chan *Reply, 1)}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	f, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	defer f.Close()
	p.cmd.Stderr = f
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("start peer: %w", err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start peer: %w", err)
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start peer: %w", err)
	}
	go func() {
		defer close(p.replies)
		for dec := json.NewDecoder(bufio.NewReader(out)); ; {
			var r Reply
			if dec.Decode(&r) != nil {
				return
			}
			p.replies <- &r
		}
	}()
	return p, nil
}

// Send asks without waiting. Receive gives the reply.
func (p *Process) Send(req *Request) error {
	line, err := json.Marshal(req)
	if err != nil {
		return fmt.Errorf("encode request: %w", err)
	}
	if _, err := p.in.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("ask peer to %s: %w", req.Op, err)
	}
	return nil
}

// Receive waits for the reply to the last Send.
func (p *Process) Receive(limit time.Duration) (*Reply, error) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case r, ok := <-p.replies:
		switch {
		case !ok:
			return nil, errors.New("the peer ended")
		case r.Error != "":
			return nil, fmt.Errorf("peer: %s", r.Error)
		}
		return r, nil
	case <-timer.C:
		p.Kill()
		return nil, fmt.Errorf("%w (%s)", ErrTimeout, limit)
	}
}

// Ask sends a request and waits for its reply.
func (p *Process) Ask(req *Request, limit time.Duration) (*Reply, error) {
	if err := p.Send(req); err != nil {
		return nil, err
	}
	return p.Receive(limit)
}

// Kill ends the process at once and waits for it.
func (p *Process) Kill() {
	p.cmd.Process.Kill()
	p.cmd.Wait()
}

// Stop ends the process in good order, or kills it.
func (p *Process) Stop() {
	if _, err := p.Ask(&Request{Op: OpStop}, 10*time.Second); err != nil {
		p.Kill()
		return
	}
	p.in.Close()
	done := make(chan struct{})
	go func() { p.cmd.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		p.Kill()
	}
}
