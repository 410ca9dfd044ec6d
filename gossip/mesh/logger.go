package mesh

import (
	"bytes"
	"context"
	"log"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const maxWarnings = 10 // a second, of serf and memberlist together; remote garbage causes them

// libraryLog is the io.Writer behind the *log.Logger of serf and memberlist. Their lines begin
// with a level in brackets. What belongs to normal life (a member that does not answer, a
// refuted suspicion) is Debug here, since this package logs member changes itself.
type libraryLog struct {
	log     *slog.Logger
	quiet   atomic.Bool   // shutting down: everything is Debug
	dropped *atomic.Int64 // warnings beyond maxWarnings

	mu     sync.Mutex // protects the fields below
	second int64
	count  int
}

func (l *libraryLog) logger() *log.Logger { return log.New(l, "", 0) }

// routine are the beginnings of messages that say less than their level.
var routine = [...]string{
	"memberlist: Failed fallback TCP ping", "memberlist: Push/Pull with", "memberlist: Failed to send",
	"memberlist: Conflicting address", "memberlist: Failed to receive", "memberlist: failed to receive",
	"memberlist: Failed to read", "memberlist: Failed to push local state", "memberlist: Failed to decode ping",
	"memberlist: Refuting", "memberlist: Got ping for unexpected node", "memberlist: Failed to send gossip",
	"serf: Shutdown without a Leave", "serf: Name conflict", "serf: reply for non-running query",
}

func (l *libraryLog) Write(line []byte) (int, error) {
	level, msg := slog.LevelDebug, string(bytes.TrimSpace(line))
	if name, rest, ok := strings.Cut(msg, "] "); ok && strings.HasPrefix(name, "[") {
		msg = rest
		switch name[1:] {
		case "ERR", "ERROR", "WARN":
			level = slog.LevelWarn
		}
	}
	for _, r := range routine {
		if strings.HasPrefix(msg, r) {
			level = slog.LevelDebug
		}
	}
	if level > slog.LevelDebug && (l.quiet.Load() || !l.admit(time.Now().Unix())) {
		level = slog.LevelDebug
	}
	ctx := context.Background()
	if l.log.Enabled(ctx, level) {
		l.log.Log(ctx, level, "membership library", "message", msg[:min(len(msg), 512)])
	}
	return len(line), nil
}

func (l *libraryLog) admit(second int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if second != l.second {
		l.second, l.count = second, 0
	}
	l.count++
	if l.count > maxWarnings {
		l.dropped.Add(1)
		return false
	}
	return true
}
