//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"
)

// A logPipe is what a server writes its log to. It can be held: who writes then waits, and
// whoever waits for him.
type logPipe struct {
	read, file *os.File
	held       chan struct{} // one for each hold: nobody reads now
	release    chan struct{}
	done       chan struct{} // closed when nobody writes any more; then err says how it went
	err        error
}

// newLogPipe appends to the file at path what is written to the pipe's other end. Whoever
// calls it closes that, and waits afterwards.
func newLogPipe(path string) (l *logPipe, write *os.File, err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, nil, err
	}
	read, write, err := os.Pipe()
	if err != nil {
		return nil, nil, errors.Join(err, file.Close())
	}
	l = &logPipe{read: read, file: file, held: make(chan struct{}), release: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(l.done)
		l.err = l.run()
	}()
	return l, write, nil
}

// run copies until nobody writes any more.
func (l *logPipe) run() error {
	defer l.file.Close()
	defer l.read.Close()
	for {
		_, err := io.Copy(l.file, l.read)
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		l.held <- struct{}{}
		<-l.release
	}
}

// wait returns when everything is in the file. The server must have ended.
func (l *logPipe) wait() error {
	<-l.done
	return l.err
}

// hold stops reading and fills the pipe, with so many bytes. free must be called.
func (l *logPipe) hold() (filled int, free func() error, err error) {
	if err := l.read.SetReadDeadline(time.Unix(1, 0)); err != nil {
		return 0, nil, err
	}
	select {
	case <-l.held:
	case <-l.done:
		return 0, nil, errors.New("hold a log: its server has ended")
	}
	free = func() error {
		defer func() { l.release <- struct{}{} }()
		return l.read.SetReadDeadline(time.Time{})
	}
	filled, err = l.fill()
	if err != nil {
		return 0, nil, errors.Join(err, free())
	}
	return filled, free, nil
}

// fill writes until there is no room, not even for one byte.
func (l *logPipe) fill() (n int, err error) {
	raw, err := l.read.SyscallConn()
	if err != nil {
		return 0, err
	}
	fd := -1
	// Opened anew: the server's end must go on to block.
	if cerr := raw.Control(func(read uintptr) {
		fd, err = syscall.Open(fmt.Sprintf("/proc/self/fd/%d", read), syscall.O_WRONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	}); err != nil || cerr != nil {
		return 0, errors.Join(err, cerr)
	}
	defer syscall.Close(fd)
	for size := 4096; size > 0; {
		text := make([]byte, size)
		for i := range text {
			text[i] = '\n'
		}
		wrote, err := syscall.Write(fd, text)
		switch {
		case errors.Is(err, syscall.EAGAIN):
			size /= 2
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return n, err
		default:
			n += wrote
		}
	}
	return n, nil
}
