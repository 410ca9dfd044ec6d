package mesh

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/meshkv/meshkv/internal/durable"
)

func TestKnownFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "members.known")
	if k, err := readKnown(path); err != nil || k.seeds != nil || k.members != nil {
		t.Errorf("no file: %v, %v", k, err)
	}
	want := known{seeds: []string{"seed.example:7950"}, members: []former{{name: "a", addr: "127.0.0.1:1"}, {name: "b", addr: "[::1]:2"}}}
	for range 2 {
		if err := durable.ReplaceFile(path, want.text()); err != nil {
			t.Fatal(err)
		}
	}
	got, err := readKnown(path)
	if err != nil || !slices.Equal(got.seeds, want.seeds) || !slices.Equal(got.members, want.members) {
		t.Errorf("got %v, %v", got, err)
	}
	if left, _ := filepath.Glob(path + "?*"); left != nil {
		t.Errorf("left over: %v", left)
	}
	var b bytes.Buffer
	b.WriteString("seed\nseed a\nmember x\nmember x/y 127.0.0.1:1\nmember z host:1\n\xff\x00\n" + strings.Repeat("y", 2*maxAddr) + "\n")
	for i := range 2 * maxFormer {
		fmt.Fprintf(&b, "seed s%d:1\nmember n%d 127.0.0.1:1\n", i, i)
	}
	os.WriteFile(path, b.Bytes(), 0o600)
	if got, err = readKnown(path); err != nil || len(got.seeds) != maxSeeds || len(got.members) != maxFormer || got.seeds[0] != "s0:1" || got.members[0].name != "n0" {
		t.Errorf("garbage: %d seeds, %d members, %v", len(got.seeds), len(got.members), err)
	}
}

func TestRosterKnown(t *testing.T) {
	r := testRoster("m", 5)
	names := func(fs []former) (out []string) {
		for _, f := range fs {
			out = append(out, f.name)
		}
		return out
	}
	r.membership(epoch, member("f", 1, StatusFailed))
	r.membership(epoch, member("l", 1, StatusLeft))
	r.membership(epoch, member("z", 1, StatusAlive))
	r.remember([]former{{name: "old", addr: "old:1"}})
	first := r.known(nil)
	expect(t, "all but who left", names(first), []string{"f", "old", "z"})
	for i := range 2 * maxFormer {
		r.membership(epoch, member(fmt.Sprintf("n%03d", i), 1, StatusAlive))
	}
	second := r.known(first)
	if got := names(second); len(got) != maxFormer || !slices.Contains(got, "z") || slices.Contains(got, "f") {
		t.Errorf("got %v", got)
	}
	r.membership(epoch, member("a", 1, StatusAlive))
	if third := r.known(second); !slices.Equal(second, third) {
		t.Errorf("it changes with one who comes: %v", names(third))
	}
}

// A node that was once started with seeds finds them without, and without serf's file.
func TestSeedsAreRemembered(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	path := filepath.Join(t.TempDir(), "members")
	keep := func(c *Config) { c.SnapshotPath = path }
	seed := c.start("seed", 10, nil)
	a := c.start("a", 11, keep, seed.Addr())
	meet(patience, seed, a)
	// It is written a moment after the start, and then at its pace.
	var k known
	var err error
	for end := time.Now().Add(patience + knownPace); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if k, err = readKnown(path + knownExt); err == nil && len(k.members) > 0 {
			break
		}
	}
	a.kill()
	if err != nil || !slices.Equal(k.seeds, []string{seed.Addr()}) || !slices.Equal(k.members, []former{{name: "seed", addr: seed.Addr()}}) {
		t.Errorf("known %+v, %v", k, err)
	}
	os.Remove(path)
	addr := seed.Addr()
	seed.kill()
	os.WriteFile(path+knownExt, (known{seeds: k.seeds}).text(), 0o600) // the seed alone
	a = c.start("a", 12, keep)
	seed = c.start("seed", 20, func(c *Config) { c.Bind = addr })
	meet(patience, seed, a)
}
