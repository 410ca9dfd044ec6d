package meshkv_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
)

const module = "github.com/meshkv/meshkv"

// A pkg is what go list tells of a package: its imports without those of its
// tests, and everything that these lead to.
type pkg struct {
	ImportPath string
	Imports    []string
	Deps       []string
}

// A rule forbids some packages to lead to others. A pattern is a path below the
// module ("/crdt") or of any other package ("net"); "..." at its end stands for
// everything below too.
type rule struct {
	name   string
	of     []string // packages that the rule is about
	not    []string // what they must not lead to
	except []string // what they may nevertheless
	direct bool     // only their own imports count
	inTree bool     // the packages of `of` must exist
}

// cores are the state machines: deterministic, without I/O.
var cores = []string{"/crdt", "/gossip", "/gossip/overlay", "/gossip/reconcile", "/consensus/machine", "/consensus/placement", "/consensus/bridge", "/consensus/keeper"}

// effects are packages of the standard library that a core has no use for.
var effects = []string{"context", "crypto/rand", "io/fs...", "log...", "net...", "os...", "runtime...", "sync...", "syscall..."}

var rules = []rule{
	{name: "crdt stands alone", of: []string{"/crdt"}, not: []string{"/..."}, inTree: true},
	{name: "crdt is pure", of: []string{"/crdt"}, not: append([]string{"time", "math/rand..."}, effects...), direct: true, inTree: true},
	{name: "cores are pure", of: cores, not: effects, direct: true},
	{name: "cores import no driver", of: cores, not: []string{"/..."}, except: append([]string{"/internal/fifo"}, cores...)},
	{name: "gossip knows no engine, API or consensus", of: []string{"/gossip..."}, not: []string{"/storage...", "/consensus...", "/client...", "/keyspace...", "/node..."}},
	{name: "consensus knows no gossip", of: []string{"/consensus..."}, not: []string{"/gossip...", "/client...", "/node..."}},
	{name: "storage makes no protocol decisions", of: []string{"/storage..."}, not: []string{"/gossip...", "/consensus...", "/client...", "/node..."}},
	{name: "client does not know the node", of: []string{"/client..."}, not: []string{"/node...", "/gossip...", "/storage...", "/consensus...", "/keyspace..."}, inTree: true},
	{name: "nobody builds on the node but those who run one", of: []string{"/crdt...", "/gossip...", "/consensus...", "/storage...", "/keyspace...", "/client..."}, not: []string{"/node...", "/cmd..."}},
	{name: "the product needs no test code", of: []string{"/cmd...", "/node", "/node/api...", "/keyspace...", "/storage", "/gossip", "/gossip/mesh...", "/crdt", "/client"}, not: []string{"/jepsen...", "/examples...", "/bench...", "/gossip/sim...", "/storage/storagetest...", "/client/clienttest...", "/internal/strongtest...", "pgregory.net/rapid"}},
	// Not what they lead to: hashicorp/raft itself imports testing.
	{name: "the product does not import testing", of: []string{"/cmd...", "/node...", "/keyspace", "/storage", "/gossip", "/gossip/mesh...", "/crdt", "/client", "/consensus..."}, not: []string{"testing..."}, direct: true},
}

// matches reports whether path falls under pattern.
func matches(pattern, path string) bool {
	if strings.HasPrefix(pattern, "/") {
		pattern = module + pattern
	}
	if base, all := strings.CutSuffix(pattern, "..."); all {
		base = strings.TrimSuffix(base, "/")
		return path == base || strings.HasPrefix(path, base+"/")
	}
	return path == pattern
}

func matchesAny(patterns []string, path string) bool {
	for _, p := range patterns {
		if matches(p, path) {
			return true
		}
	}
	return false
}

// violations are the imports that break r, as "from -> to".
func (r rule) violations(pkgs []pkg) (found []string, seen int) {
	for _, p := range pkgs {
		if !matchesAny(r.of, p.ImportPath) {
			continue
		}
		seen++
		reached := p.Deps
		if r.direct {
			reached = p.Imports
		}
		for _, to := range reached {
			if to != p.ImportPath && matchesAny(r.not, to) && !matchesAny(r.except, to) && !matchesAny(r.of, to) {
				found = append(found, p.ImportPath+" -> "+to)
			}
		}
	}
	return found, seen
}

func TestImportRules(t *testing.T) {
	pkgs := listPackages(t)
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			found, seen := r.violations(pkgs)
			if r.inTree && seen == 0 {
				t.Errorf("no package matches %v: the rule has lost its subject", r.of)
			}
			for _, f := range found {
				t.Error(f)
			}
		})
	}
}

// TestRulesBite breaks each rule once.
func TestRulesBite(t *testing.T) {
	concrete := func(pattern string) string {
		if strings.HasPrefix(pattern, "/") {
			pattern = module + pattern
		}
		if base, all := strings.CutSuffix(pattern, "..."); all {
			return strings.TrimSuffix(base, "/") + "/below"
		}
		return pattern
	}
	for _, r := range rules {
		for _, of := range r.of {
			for _, not := range r.not {
				bad := pkg{ImportPath: concrete(of), Imports: []string{concrete(not)}, Deps: []string{concrete(not)}}
				if found, _ := r.violations([]pkg{bad}); len(found) != 1 {
					t.Errorf("rule %q does not see %s importing %s", r.name, bad.ImportPath, bad.Imports[0])
				}
			}
		}
	}
}

// listPackages lists the module's packages. It needs no network: everything
// that is imported has been built for this test run.
func listPackages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Imports,Deps", "./...")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.Bytes())
	}
	var pkgs []pkg
	dec := json.NewDecoder(bytes.NewReader(out))
	for {
		var p pkg
		err := dec.Decode(&p)
		if errors.Is(err, io.EOF) {
			return pkgs
		}
		if err != nil {
			t.Fatalf("go list: %v", err)
		}
		pkgs = append(pkgs, p)
	}
}
