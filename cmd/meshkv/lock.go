package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/meshkv/meshkv/client"
)

const (
	// dialTimeout bounds the search for the node where only the lock may be waited
	// for without end.
	dialTimeout = 10 * time.Second
	// unlockTimeout bounds the release of a lock when its command has ended.
	unlockTimeout = 5 * time.Second
)

// lockFlags are those of the commands that hold something.
type lockFlags struct{ ttl time.Duration }

func (a *app) holdFlags(cmd *cobra.Command, f *lockFlags) *cobra.Command {
	cmd.Flags().DurationVar(&f.ttl, "ttl", 15*time.Second, "how long the lock outlives a holder that is gone, 1s to 24h")
	return a.patientFlags(cmd, 0, "how long to wait for it; 0 waits without end")
}

func (f *lockFlags) check() error {
	if f.ttl < time.Second || f.ttl > 24*time.Hour {
		return usagef("--ttl %v: a time to live is 1s to 24h", f.ttl)
	}
	return nil
}

func (a *app) lockCommand() *cobra.Command {
	var (
		f      lockFlags
		shared bool
		places int
	)
	cmd := &cobra.Command{
		Use:   "lock KS/NAME [-- CMD...]",
		Short: "Hold a lock while a command runs",
		Long: "Wait for a lock of a strong keyspace, run a command, and give the lock up. The command finds its fencing token in\n" +
			"MESHKV_FENCING_TOKEN; what the lock protects should refuse tokens lower than the highest it has seen. If the lock\n" +
			"is lost, the command and its children get SIGTERM, 5 s later SIGKILL, and the exit code is 4; else it is the\n" +
			"command's. Without a command the lock is held until interrupted, and its token printed.",
		Example: "  meshkv lock locks/backup --timeout 1m -- ./backup.sh\n  meshkv lock locks/slots --places 3 -- make",
		Args:    addressAndCommand("KS/NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			keyspace, name, err := parseAddress(args[0])
			if err != nil {
				return err
			}
			if err := f.check(); err != nil {
				return err
			}
			switch {
			case cmd.Flags().Changed("places") && places < 1:
				return usagef("--places %d: a semaphore has at least one place", places)
			case shared && places > 0:
				return usagef("--shared and --places are two kinds of locks: choose one")
			}
			o := &client.LockOptions{TTL: f.ttl}
			return a.hold(cmd.Context(), holding{
				what: "lock", keyspace: keyspace, name: name, ttl: f.ttl, argv: args[1:],
				acquire: func(ctx context.Context, s client.Strong) (client.Held, error) {
					switch {
					case shared:
						return s.RLock(ctx, name, o)
					case places > 0:
						return s.Semaphore(ctx, name, places, o)
					}
					return s.Lock(ctx, name, o)
				},
			})
		},
	}
	cmd.Flags().BoolVar(&shared, "shared", false, "hold it together with other shared holders")
	cmd.Flags().IntVar(&places, "places", 0, "hold one of so many places; all who use it give the same number")
	return a.holdFlags(cmd, &f)
}

// addressAndCommand accepts the named arguments, and behind -- a command.
func addressAndCommand(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		dash := cmd.ArgsLenAtDash()
		if dash < 0 {
			if len(args) > len(names) {
				return usagef("%q is one argument too many (a command stands behind --): usage: %s", args[len(names)], cmd.UseLine())
			}
			dash = len(args)
		} else if dash == len(args) {
			return usagef("no command stands behind --: usage: %s", cmd.UseLine())
		}
		return exactArgs(names...)(cmd, args[:dash])
	}
}

// A holding is something to be held while a command runs, or until interrupted.
type holding struct {
	what           string // "lock" or "election"
	keyspace, name string
	ttl            time.Duration
	argv           []string // empty: no command
	acquire        func(ctx context.Context, s client.Strong) (client.Held, error)
}

func (h *holding) String() string { return h.what + " " + h.keyspace + "/" + printable(h.name) }

func (a *app) hold(ctx context.Context, h holding) error {
	if len(h.argv) > 0 {
		path, err := exec.LookPath(h.argv[0])
		if err != nil {
			return usagef("%s: no such command, or not one that can be run", h.argv[0])
		}
		h.argv[0] = path
	}
	dialing, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	c, err := a.connect(dialing, a.addr)
	if err != nil {
		return err
	}
	defer c.Close()
	s, err := c.Strong(dialing, h.keyspace)
	if err != nil {
		return fmt.Errorf("open keyspace %s: %w", h.keyspace, err)
	}
	waiting, cancel := a.deadline(ctx)
	held, err := h.acquire(waiting, s)
	cancel()
	if err != nil {
		return fmt.Errorf("%s: %w", &h, err)
	}
	err = a.whileHeld(ctx, &h, held)
	return a.release(ctx, &h, held, err)
}

// whileHeld runs the command, or waits until it is interrupted or the lock lost.
func (a *app) whileHeld(ctx context.Context, h *holding, held client.Held) error {
	if len(h.argv) == 0 {
		if err := a.printHeld(h, held); err != nil {
			return err
		}
		select {
		case <-held.Lost():
			return nil // release tells
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	end, err := a.runChild(ctx, h.argv, h.environment(a.addr, held), held.Lost())
	switch {
	case err != nil:
		return err
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case end.code != 0:
		return &childExit{code: end.code}
	}
	return nil
}

// environment is what the command is told.
func (h *holding) environment(addr string, held client.Held) []string {
	token := strconv.FormatUint(uint64(held.Token()), 10)
	env := []string{
		"MESHKV_ADDR=" + addr,
		"MESHKV_KEYSPACE=" + h.keyspace,
		"MESHKV_LOCK=" + h.name,
		"MESHKV_FENCING_TOKEN=" + token,
		"MESHKV_SESSION=" + held.Session().String(),
	}
	if h.what == "election" {
		env = append(env, "MESHKV_ELECTION_TOKEN="+token)
	}
	return env
}

func (a *app) printHeld(h *holding, held client.Held) (err error) {
	switch a.output {
	case formatJSON:
		return a.printJSON(struct {
			Keyspace string              `json:"keyspace"`
			Name     string              `json:"name"`
			Token    client.FencingToken `json:"token"`
			Session  string              `json:"session"`
		}{h.keyspace, h.name, held.Token(), held.Session().String()})
	case formatRaw:
		_, err = fmt.Fprintln(a.stdout, held.Token())
	default:
		_, err = fmt.Fprintf(a.stdout, "%s is held, token %d, until interrupted\n", h, held.Token())
	}
	return err
}

// release gives the lock up and returns how the whole has ended, err being how
// the use of the lock has. That the lock was lost outweighs all.
func (a *app) release(ctx context.Context, h *holding, held client.Held, err error) error {
	lost := false
	select {
	case <-held.Lost():
		lost = true
	default:
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), unlockTimeout)
	defer cancel()
	switch unlock := held.Unlock(ctx); {
	case lost, errors.Is(unlock, client.ErrSessionLost), errors.Is(unlock, client.ErrNotHeld):
		text := fmt.Sprintf("%s was lost: another may hold it", h)
		if len(h.argv) > 0 {
			text = fmt.Sprintf("%s was lost while the command ran: another may hold it", h)
		}
		return &failure{text: text, cause: client.ErrSessionLost}
	case unlock != nil:
		fmt.Fprintf(a.stderr, "meshkv: %s is given up later, within %v: %s\n", h, h.ttl, oneLine(unlock.Error()))
	}
	return err
}
