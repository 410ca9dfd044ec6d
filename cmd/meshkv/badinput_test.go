package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func writeFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// takenPort is a loopback address that somebody else listens on.
func takenPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

// freePort is a loopback address that nobody listens on.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// Every mistake is answered by one line that names it, and by its code.
func TestBadInput(t *testing.T) {
	t.Parallel()
	running := newAgent(t, "host-1").start()
	must(t, "put", "net/a", "1", "--addr", running.http)
	agentArgs := func(more ...string) []string {
		return append([]string{"agent", "--bind", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data-dir", filepath.Join(t.TempDir(), "d")}, more...)
	}
	for _, c := range []struct {
		name string
		args []string
		env  map[string]string
		code int
		want string // in the line
	}{
		{"unknown command", []string{"frobnicate"}, nil, codeUsage, `"frobnicate"`},
		{"near command", []string{"gett", "net/a"}, nil, codeUsage, "did you mean 'meshkv get'"},
		{"unknown subcommand", []string{"keyspace", "frob"}, nil, codeUsage, `"frob"`},
		{"unknown help", []string{"help", "frob"}, nil, codeUsage, `"frob"`},
		{"unknown flag", []string{"get", "net/a", "--frob"}, nil, codeUsage, "--frob"},
		{"unknown flag of the agent", agentArgs("--frob"), nil, codeUsage, "--frob"},
		{"bad flag value", []string{"get", "net/a", "--timeout", "soon"}, nil, codeUsage, "timeout"},
		{"bad environment", []string{"get", "net/a"}, map[string]string{"MESHKV_TIMEOUT": "soon"}, codeUsage, "MESHKV_TIMEOUT"},
		{"bad output", []string{"get", "net/a", "-o", "xml"}, nil, codeUsage, "xml"},
		{"missing argument", []string{"put", "net/a"}, nil, codeUsage, "VALUE"},
		{"argument too many", []string{"put", "net/a", "b", "c"}, nil, codeUsage, `"c"`},
		{"over-long key", []string{"put", "net/" + strings.Repeat("k", 1025), "x", "--addr", running.http}, nil, codeUsage, "1025"},
		{"bad keyspace", []string{"ls", "Net", "--addr", running.http}, nil, codeUsage, `"Net"`},
		{"bad address", []string{"members", "--addr", "nowhere"}, nil, codeUsage, `"nowhere"`},
		{"oversized value", []string{"put", "net/a", strings.Repeat("v", 65537), "--addr", running.http}, nil, codeError, "65536"},
		{"missing key", []string{"get", "net/none", "--addr", running.http}, nil, codeNotFound, "not found"},
		{"missing keyspace", []string{"keyspace", "info", "none", "--addr", running.http}, nil, codeNotFound, "none"},
		{"write to the system", []string{"put", "_members/a", "1", "--addr", running.http}, nil, codeDenied, "can only be read"},
		{"removal of the system", []string{"keyspace", "rm", "_members", "--addr", running.http}, nil, codeDenied, "meshkv: denied: keyspace _members"},
		{"removal of nothing", []string{"keyspace", "rm", "none", "--addr", running.http}, nil, codeNotFound, "meshkv: not found: keyspace none"},
		{"missing node", []string{"diff", "net", "host-1", "host-9", "--addr", running.http}, nil, codeNotFound, "host-9"},
		{"no node there", []string{"get", "net/a", "--addr", freePort(t)}, nil, codeUnavailable, "--addr"},
		{"never ready", []string{"wait", "--addr", freePort(t), "--timeout", "300ms"}, nil, codeTimeout, "not reachable"},
		{"never synced", []string{"wait", "--synced", "none", "--addr", running.http, "--timeout", "3s"}, nil, codeTimeout, "waiting for: keyspace none does not exist yet"},
		{"no data directory", []string{"agent"}, nil, codeUsage, "--data-dir"},
		{"bad durability", agentArgs("--durability", "maybe"), nil, codeUsage, "maybe"},
		{"bad log store", agentArgs("--server", "--log-store", "paper"), nil, codeUsage, "paper"},
		{"bootstrap without a server", agentArgs("--bootstrap-servers", "a"), nil, codeUsage, "--server"},
		{"bootstrap of others", agentArgs("--server", "--name", "a", "--bootstrap-servers", "b"), nil, codeUsage, "not among them"},
		{"bad name", agentArgs("--name", "a b"), nil, codeUsage, "a b"},
		{"open to the world", agentArgs("--bind", "0.0.0.0:0"), nil, codeUsage, "--insecure"},
		{"bad log level", agentArgs("--log-level", "loud"), nil, codeUsage, "loud"},
		{"unwritable directory", agentArgs("--data-dir", filepath.Join(writeFile(t, ""), "below")), nil, codeError, "--data-dir"},
		{"directory in use", agentArgs("--data-dir", running.dir), nil, codeError, "in use"},
		{"taken mesh port", agentArgs("--bind", takenPort(t)), nil, codeError, "--bind"},
		{"taken API port", agentArgs("--http", takenPort(t)), nil, codeError, "--http"},
		{"no config file", agentArgs("--config", filepath.Join(t.TempDir(), "none.toml")), nil, codeUsage, "none.toml"},
		{"unknown key in the config file", agentArgs("--config", writeFile(t, "nmae = \"x\"\n")), nil, codeUsage, `"nmae"`},
		{"broken config file", agentArgs("--config", writeFile(t, "name = \n")), nil, codeUsage, "line 1"},
		{"too few nodes for a demo", []string{"demo", "--nodes", "1"}, nil, codeUsage, "3"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := meshkvIn(t, c.env, c.args...)
			if r.code != c.code {
				t.Errorf("code %d, want %d", r.code, c.code)
			}
			if r.stdout != "" {
				t.Errorf("on stdout: %q", r.stdout)
			}
			line, rest, _ := strings.Cut(r.stderr, "\n")
			if rest != "" || !strings.HasPrefix(line, "meshkv: ") || !strings.Contains(line, c.want) {
				t.Errorf("got %q, want one line with %q", r.stderr, c.want)
			}
		})
	}
	t.Run("as a process", func(t *testing.T) {
		r := finish(t, program(t, "get", "net/a", "--frob"))
		if r.code != codeUsage || r.stdout != "" || strings.Count(r.stderr, "\n") != 1 {
			t.Errorf("got %+v", r)
		}
	})
	if got := must(t, "get", "net/a", "--addr", running.http); got != "1\n" {
		t.Errorf("after all that: got %q, want the value untouched", got)
	}
}

// A seed that cannot be reached keeps nobody from using the node.
func TestUnreachableSeed(t *testing.T) {
	t.Parallel()
	seed := freePort(t)
	a := newAgent(t, "host-1", seed).start()
	must(t, "put", "net/a", "1", "--addr", a.http)
	if got := must(t, "get", "net/a", "--addr", a.http); got != "1\n" {
		t.Errorf("got %q", got)
	}
	r := meshkv(t, "wait", "--addr", a.http, "--timeout", "3s")
	if r.code != codeTimeout || !strings.Contains(r.stderr, seed) || strings.Count(r.stderr, "\n") != 1 {
		t.Errorf("wait: got %+v, want %d and a line that names %s", r, codeTimeout, seed)
	}
}

// What is on disk is served again, however the process ended.
func TestKilledAgentKeepsDurablePuts(t *testing.T) {
	t.Parallel()
	a := newAgent(t, "host-1")
	a.more = []string{"--durability", "fsync"}
	a.start()
	must(t, "put", "net/a", "1", "--addr", a.http)
	a.signal(9)
	a.start()
	if got := must(t, "get", "net/a", "--addr", a.http); got != "1\n" {
		t.Errorf("got %q", got)
	}
}
