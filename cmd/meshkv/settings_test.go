package main

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
)

// load settles settings as the agent command does.
func load(t *testing.T, args []string, env map[string]string, file string) (settings, error) {
	t.Helper()
	var s settings
	flags := pflag.NewFlagSet("agent", pflag.ContinueOnError)
	s.flags(flags)
	flags.String("config", "", "")
	if err := flags.Parse(args); err != nil {
		return s, err
	}
	if err := applyEnv(flags, func(name string) (string, bool) { v, ok := env[name]; return v, ok }); err != nil {
		return s, err
	}
	if file == "" {
		return s, nil
	}
	path := filepath.Join(t.TempDir(), "meshkv.toml")
	if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	return s, readConfig(path, flags)
}

func TestPrecedence(t *testing.T) {
	env := map[string]string{"MESHKV_ZONE": "from-env", "MESHKV_REAP_AFTER": "2h", "MESHKV_HTTP": ""}
	file := "zone = \"from-file\"\nreap-after = \"3h\"\nhttp = \"off\"\ndata-dir = \"d\"\njoin = [\"a:1\", \"b:2\"]\ninsecure = true\n" +
		"server = true\nbootstrap-servers = [\"n1\", \"n2\", \"n3\"]\nlog-store = \"boltdb\"\n"
	s, err := load(t, []string{"--zone", "from-flag"}, env, file)
	if err != nil {
		t.Fatal(err)
	}
	want := settings{
		dataDir: "d", durability: "async", bind: "127.0.0.1:7950", http: "off", join: []string{"a:1", "b:2"},
		server: true, bootstrap: []string{"n1", "n2", "n3"}, logStore: "boltdb", zone: "from-flag", reapAfter: 2 * time.Hour, insecure: true, logLevel: "info", logFmt: "text",
	}
	s.roles = nil // an unset list is empty, not nil
	s.keyspaces = nil
	if !reflect.DeepEqual(s, want) {
		t.Errorf("got  %+v\nwant %+v", s, want)
	}
}

func TestBadSettings(t *testing.T) {
	for _, c := range []struct {
		name, file string
		env        map[string]string
		want       string
	}{
		{"unknown key", "nmae = \"x\"", nil, `unknown key "nmae"`},
		{"unknown table", "[storage]\npath = \"x\"", nil, `unknown key "storage"`},
		{"no setting", "config = \"x\"", nil, `unknown key "config"`},
		{"no TOML", "name = ", nil, "line 1"},
		{"wrong type", "name = 1.5", nil, "name"},
		{"list of numbers", "join = [1]", nil, "join"},
		{"bad duration", "reap-after = \"soon\"", nil, "reap-after"},
		{"bad environment", "", map[string]string{"MESHKV_REAP_AFTER": "soon"}, "MESHKV_REAP_AFTER"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := load(t, nil, c.env, c.file)
			var usage *usageError
			if !errors.As(err, &usage) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want one line of usage error with %q", err, c.want)
			}
		})
	}
}
