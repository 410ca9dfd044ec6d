package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
	"github.com/spf13/pflag"
)

// Settings are what an agent is configured with. Every setting has one name,
// used alike as a flag (--data-dir), in the environment (MESHKV_DATA_DIR) and
// in the configuration file (data-dir). A flag wins over the environment, that
// over the file, that over the default.
type settings struct {
	name, cluster    string
	dataDir          string
	durability       string
	bind, advertise  string
	http             string
	join             []string
	zone             string
	roles            []string
	keyspaces        []string
	server           bool
	bootstrap        []string
	logStore         string
	reapAfter        time.Duration
	insecure         bool
	logLevel, logFmt string
}

// flags declares the settings on a command's flag set.
func (s *settings) flags(f *pflag.FlagSet) {
	f.StringVar(&s.name, "name", "", "name of the node, unique in the cluster (default: the host's name)")
	f.StringVar(&s.cluster, "cluster", "", "name of the cluster: nodes of another are refused")
	f.StringVar(&s.dataDir, "data-dir", "", "directory of the node's data")
	f.StringVar(&s.durability, "durability", "async", "memory, async (on disk soon after the answer) or fsync (before it)")
	f.StringVar(&s.bind, "bind", "127.0.0.1:7950", "HOST:PORT of the mesh, UDP and TCP")
	f.StringVar(&s.advertise, "advertise", "", "HOST:PORT at which other nodes reach the mesh (default: as bound)")
	f.StringVar(&s.http, "http", "127.0.0.1:7951", "HOST:PORT of the API, or off")
	f.StringSliceVar(&s.join, "join", nil, "HOST:PORT,... of nodes to join; they need not be up yet")
	f.StringVar(&s.zone, "zone", "", "where the node stands: a rack, a site")
	f.StringSliceVar(&s.roles, "roles", nil, "ROLE,... shown in the list of members")
	f.StringSliceVar(&s.keyspaces, "keyspaces", []string{"*"}, "KS,... that the node holds, or * for all; others are served by the nodes that hold them")
	f.BoolVar(&s.server, "server", false, "hold replicas of strong keyspaces")
	f.StringSliceVar(&s.bootstrap, "bootstrap-servers", nil, "NAME,... of the 1, 3 or 5 servers that begin the strong keyspaces of a new cluster, the same list at each")
	f.StringVar(&s.logStore, "log-store", "", "how a server keeps the logs of its keyspaces: journal (the default) or boltdb; not to be changed later")
	f.DurationVar(&s.reapAfter, "reap-after", 24*time.Hour, "forget a failed node after this long")
	f.BoolVar(&s.insecure, "insecure", false, "allow an address that is not loopback without keys")
	f.StringVar(&s.logLevel, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&s.logFmt, "log-format", "text", "text or json")
}

// readConfig sets every flag that neither the command line nor the environment
// has set from the TOML file at path. It runs after applyEnv.
func readConfig(path string, flags *pflag.FlagSet) error {
	text, err := os.ReadFile(path)
	if err != nil {
		var perr *fs.PathError
		if errors.As(err, &perr) {
			err = perr.Err
		}
		return usagef("config file %s: %v", path, err)
	}
	values := map[string]any{}
	if _, err := toml.Decode(string(text), &values); err != nil {
		return usagef("config file %s: %s", path, strings.TrimPrefix(oneLine(err.Error()), "toml: "))
	}
	for _, key := range sortedKeys(values) {
		f := flags.Lookup(key)
		if f == nil || !configurable(key) {
			return usagef("config file %s: unknown key %q; the keys are: %s", path, key, strings.Join(configKeys(flags), ", "))
		}
		text, err := flagText(values[key])
		if err != nil {
			return usagef("config file %s: %s: %v", path, key, err)
		}
		if f.Changed {
			continue
		}
		if err := flags.Set(key, text); err != nil {
			return usagef("config file %s: %s = %q is no valid value (%s)", path, key, text, f.Usage)
		}
	}
	return nil
}

// configurable reports whether a flag may stand in the file; the rest steer
// the command itself.
func configurable(flag string) bool {
	return flag != "config" && flag != "help" && flag != "output"
}

func configKeys(flags *pflag.FlagSet) []string {
	var keys []string
	flags.VisitAll(func(f *pflag.Flag) {
		if configurable(f.Name) {
			keys = append(keys, f.Name)
		}
	})
	return keys
}

// flagText is a TOML value as one would write it on the command line.
func flagText(v any) (string, error) {
	switch v := v.(type) {
	case string:
		return v, nil
	case bool:
		return strconv.FormatBool(v), nil
	case int64:
		return strconv.FormatInt(v, 10), nil
	case []any:
		parts := make([]string, 0, len(v))
		for _, item := range v {
			s, ok := item.(string)
			if !ok {
				return "", errors.New("a list holds only strings")
			}
			parts = append(parts, s)
		}
		return strings.Join(parts, ","), nil
	}
	return "", fmt.Errorf("a %T is no setting", v)
}

// logger is the agent's log on stderr.
func (a *app) logger(level, format string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, usagef("--log-level %q: the levels are debug, info, warn and error", level)
	}
	o := &slog.HandlerOptions{Level: l}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(a.stderr, o)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(a.stderr, o)), nil
	}
	return nil, usagef("--log-format %q: the formats are text and json", format)
}
