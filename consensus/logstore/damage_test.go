package logstore_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/raft"
	"github.com/meshkv/meshkv/consensus/logstore"
	"github.com/meshkv/meshkv/storage"
	"pgregory.net/rapid"
)

const tinySegment = logstore.SegmentHead + 1<<10

// An image is the files of a store by their names.
type image map[string][]byte

// imageOf reads the files at path. The store may be at work: files that vanish
// meanwhile make it begin again.
func imageOf(path string) (image, error) {
	for {
		names, err := os.ReadDir(path)
		if err != nil {
			return nil, err
		}
		files := make(image)
		for _, n := range names {
			b, err := os.ReadFile(filepath.Join(path, n.Name()))
			if errors.Is(err, os.ErrNotExist) {
				break
			}
			if err != nil {
				return nil, err
			}
			files[n.Name()] = b
		}
		if len(files) == len(names) {
			return files, nil
		}
	}
}

// write makes path hold these files and no others.
func (files image) write(path string) error {
	err := errors.Join(os.RemoveAll(path), os.Mkdir(path, 0o700))
	for name, b := range files {
		err = errors.Join(err, os.WriteFile(filepath.Join(path, name), b, 0o600))
	}
	return err
}

// names are those of the segments, in their order.
func (files image) names() []string { return slices.Sorted(maps.Keys(files)) }

// with is files, but for one of them.
func (files image) with(name string, b []byte) image {
	files = maps.Clone(files)
	files[name] = b
	return files
}

// filled is the path and the files of a store with two groups, which is closed or
// was left as a crash leaves it.
func filled(t *testing.T, closed bool, segment int64) (path string, files image) {
	t.Helper()
	path = newPath(t)
	s := open(t, path, logstore.InSegmentsOf(logstore.Options{}, segment))
	for _, name := range []string{"a", "b"} {
		g := group(t, s, name)
		for i := range uint64(8) {
			mustStore(t, g, entries(3*i+1, 3, "some data"))
		}
		if err := g.SetUint64([]byte("CurrentTerm"), 77); err != nil {
			t.Fatal(err)
		}
	}
	crashed, err := restingImageOf(path)
	if err == nil {
		err = s.Close()
	}
	if err == nil && !closed {
		return path, crashed
	}
	files, err2 := imageOf(path)
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	if len(files) < 3 && segment == tinySegment {
		t.Fatalf("%d segments: the test shows little", len(files))
	}
	return path, files
}

// restingImageOf is imageOf when the store makes no segment ahead: one that appears while the directory is read may be
// missed, and a later one be seen.
func restingImageOf(path string) (image, error) {
	before, err := imageOf(path)
	for range 1000 {
		if err != nil {
			return nil, err
		}
		var after image
		if after, err = imageOf(path); err == nil && maps.EqualFunc(before, after, bytes.Equal) {
			return after, nil
		}
		before = after
	}
	return nil, errors.New("the store does not come to rest")
}

// opened is what a store at path holds: the last index of both groups and their
// terms. The entries must be those of filled, from the first on.
func opened(path string) (lasts, terms [2]uint64, err error) {
	s, err := logstore.Open(path, logstore.InSegmentsOf(logstore.Options{}, tinySegment))
	if err != nil {
		return lasts, terms, err
	}
	defer s.Close()
	for n, name := range []string{"a", "b"} {
		g, err := s.Group(name)
		if err != nil {
			return lasts, terms, err
		}
		first, err1 := g.FirstIndex()
		last, err2 := g.LastIndex()
		term, err3 := g.GetUint64([]byte("CurrentTerm"))
		if err := errors.Join(err1, err2, err3); err != nil || first > 1 {
			return lasts, terms, fmt.Errorf("entries %d to %d: %w", first, last, err)
		}
		for i := range last {
			var log raft.Log
			if err := g.GetLog(i+1, &log); err != nil || string(log.Data) != fmt.Sprint("some data ", i+1) {
				return lasts, terms, fmt.Errorf("entry %d is %q: %w", i+1, log.Data, err)
			}
		}
		lasts[n], terms[n] = last, term
	}
	return lasts, terms, nil
}

// intact returns nil if the store at path is that of filled.
func intact(path string) error {
	lasts, terms, err := opened(path)
	if err == nil && (lasts != [2]uint64{24, 24} || terms != [2]uint64{77, 77}) {
		err = fmt.Errorf("last entries %v, terms %v", lasts, terms)
	}
	return err
}

// A flipped bit in any byte is found, wherever it matters, also in the last commit
// before a crash.
func TestFlippedBits(t *testing.T) {
	for name, closed := range map[string]bool{"closed": true, "crashed": false} {
		t.Run(name, func(t *testing.T) {
			path, files := filled(t, closed, tinySegment)
			if err := files.write(path); err != nil {
				t.Fatal(err)
			}
			if err := intact(path); err != nil {
				t.Fatal(err)
			}
			harmless, found := 0, 0
			names := files.names()
			for _, name := range names[max(0, len(names)-3):] { // the last may be made ahead
				used := len(bytes.TrimRight(files[name], "\x00"))
				for at := range used {
					if at > 64 && at < logstore.SegmentHead { // is read by nobody
						continue
					}
					b := bytes.Clone(files[name])
					b[at] ^= 1 << (at % 8)
					if err := files.with(name, b).write(path); err != nil {
						t.Fatal(err)
					}
					switch err := intact(path); {
					case errors.Is(err, storage.ErrDamaged):
						found++
					case err == nil && (files[name][at] == 0 || at > 36 && at < logstore.SegmentHead):
						harmless++ // between two frames
					default:
						t.Fatalf("%s, byte %d of %d: got %v, want ErrDamaged", name, at, used, err)
					}
				}
			}
			if harmless > found/10 {
				t.Errorf("%d flips did no harm, %d were found", harmless, found)
			}
		})
	}
}

// A file that is cut off anywhere is damaged: it has its full size from the start.
func TestTruncatedFiles(t *testing.T) {
	path, files := filled(t, true, tinySegment)
	for _, name := range files.names() {
		for size := range len(files[name]) {
			if size > 64 && size < logstore.SegmentHead {
				continue
			}
			if err := files.with(name, files[name][:size]).write(path); err != nil {
				t.Fatal(err)
			}
			if err := intact(path); !errors.Is(err, storage.ErrDamaged) {
				t.Fatalf("%s cut off at %d: got %v, want ErrDamaged", name, size, err)
			}
		}
	}
}

// Where the end of the last segment never reached the disk, the log is damaged or
// ends earlier, and never has other entries. Only whole sectors can pass for
// commits that were never made.
func TestLostEnd(t *testing.T) {
	path, files := filled(t, false, 16<<10)
	last := files.names()[0] // the only one, in which nothing was moved
	used := len(bytes.TrimRight(files[last], "\x00"))
	shorter := 0
	for at := logstore.SegmentHead; at < used; at++ {
		b := bytes.Clone(files[last])
		clear(b[at:])
		if err := files.with(last, b).write(path); err != nil {
			t.Fatal(err)
		}
		lasts, _, err := opened(path)
		switch {
		case errors.Is(err, storage.ErrDamaged):
		case err != nil || lasts[0] > 24 || lasts[1] > 24:
			t.Fatalf("zeros from %d on: got %v, %v", at, lasts, err)
		default:
			shorter++
		}
	}
	if shorter == 0 {
		t.Error("no log was shorter: the test shows nothing")
	}
}

// A missing, foreign, exchanged or unexpected file is damage.
func TestDamagedFiles(t *testing.T) {
	_, foreign := filled(t, true, tinySegment)
	without := func(n int) func(files image) {
		return func(files image) { delete(files, files.names()[n]) }
	}
	for name, damage := range map[string]func(files image){
		"first missing":  without(0),
		"second missing": without(1),
		"last missing": func(files image) {
			for len(bytes.TrimRight(files[files.names()[len(files)-1]][logstore.SegmentHead:], "\x00")) == 0 {
				without(len(files) - 1)(files) // was made ahead
			}
			without(len(files) - 1)(files)
		},
		"foreign":   func(files image) { name := files.names()[1]; files[name] = foreign[name] },
		"exchanged": func(files image) { n := files.names(); files[n[0]], files[n[1]] = files[n[1]], files[n[0]] },
		"again": func(files image) {
			n := files.names()
			var number int
			_, _ = fmt.Sscanf(n[len(n)-1], "%x", &number)
			files[fmt.Sprintf("%08x.seg", number+1)] = files[n[0]]
		},
		"empty": func(files image) { files[files.names()[0]] = nil },
		"commit cut out": func(files image) { // as if it were never written
			first := files.names()[0] // which entries are in it is up to what was moved
			b := bytes.Clone(files[first])
			middle := b[logstore.SegmentHead+100:]
			at := bytes.Index(middle, []byte("some data"))
			clear(b[logstore.SegmentHead+at : logstore.SegmentHead+at+130])
			files[first] = b
		},
	} {
		t.Run(name, func(t *testing.T) {
			path, files := filled(t, true, tinySegment)
			damage(files)
			if err := files.write(path); err != nil {
				t.Fatal(err)
			}
			if err := intact(path); !errors.Is(err, storage.ErrDamaged) {
				t.Fatalf("got %v, want ErrDamaged", err)
			}
		})
	}
}

// What was being made when the process ended is removed.
func TestUnfinishedSegment(t *testing.T) {
	path, files := filled(t, true, tinySegment)
	files["000000ff.seg.new"] = []byte("unfinished")
	if err := files.write(path); err != nil {
		t.Fatal(err)
	}
	if err := intact(path); err != nil {
		t.Fatal(err)
	}
	files, err := imageOf(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := files["000000ff.seg.new"]; ok {
		t.Error("it is still there")
	}
}

// flip changes a byte of the first entry with that data, in the files at path.
func flip(t *testing.T, path, data string) {
	t.Helper()
	files, err := imageOf(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range files {
		at := bytes.Index(b, []byte(data))
		if at < 0 {
			continue
		}
		f, err := os.OpenFile(filepath.Join(path, name), os.O_RDWR, 0)
		if err == nil {
			_, err = f.WriteAt([]byte{b[at] ^ 1}, int64(at))
			err = errors.Join(err, f.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Fatalf("%q is in no file", data)
}

// An entry that is damaged while the store is open is found when it is read.
func TestDamageWhileOpen(t *testing.T) {
	path := newPath(t)
	s := open(t, path, &logstore.Options{CacheEntries: 1})
	g := group(t, s, "g")
	mustStore(t, g, entries(100, 50, "entry"))
	flip(t, path, "entry 123")
	var log raft.Log
	if err := g.GetLog(123, &log); !errors.Is(err, storage.ErrDamaged) {
		t.Errorf("got %v, want ErrDamaged", err)
	}
	if err := g.GetLog(124, &log); err != nil {
		t.Errorf("the next entry: %v", err)
	}
}

// Damage that is found while entries are moved stops the store: it never makes
// another entry of it.
func TestDamageBeforeAMove(t *testing.T) {
	path := newPath(t)
	s := open(t, path, logstore.InSegmentsOf(logstore.Options{}, 8<<10))
	idle, busy := group(t, s, "idle"), group(t, s, "busy")
	mustStore(t, idle, entries(1, 3, "idle"))
	flip(t, path, "idle 2")
	var err error
	for i := uint64(1); err == nil && i < 100_000; i++ {
		if err = busy.StoreLogs(entries(i, 1, strings.Repeat("busy", 100))); err == nil {
			err = busy.DeleteRange(0, i-1)
		}
	}
	if !errors.Is(err, storage.ErrDamaged) || !errors.Is(err, storage.ErrFailed) {
		t.Errorf("got %v, want ErrFailed by ErrDamaged", err)
	}
}

// A crash leaves some sectors of the last commit and not others. What was
// acknowledged is there then, and of that commit all or nothing; and the store goes
// on from there.
func TestTornCommits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		base := newDir(t)
		m := &model{strict: true, groups: map[string]modelGroup{}}
		var mu sync.Mutex // protects the fields below: the cleaner commits too
		var before, after image
		skip := -1 // writes until the one to be torn; negative: none is
		openAt := func(dir string) error {
			o := logstore.CommitBy(logstore.Options{CacheEntries: 2}, func(put func() error) error {
				mu.Lock()
				defer mu.Unlock()
				if skip--; skip != -1 {
					return put()
				}
				b, err1 := imageOf(filepath.Join(dir, "raft-log"))
				err2 := put()
				a, err3 := imageOf(filepath.Join(dir, "raft-log"))
				before, after = b, a
				return errors.Join(err1, err2, err3)
			})
			e, err := logstore.OpenEngine(logstore.Journal, dir, logstore.InSegmentsOf(*o, tinySegment))
			if err == nil {
				m.engine = e
			}
			return err
		}
		if err := openAt(base); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = m.engine.Close() }()
		forget := func() {
			mu.Lock()
			defer mu.Unlock()
			before, after = nil, nil
		}
		crashes := 0
		crash := func(t *rapid.T) {
			acked := make(map[string]modelGroup)
			for name, g := range m.groups {
				acked[name] = g.clone()
			}
			n := rapid.IntRange(0, 1).Draw(t, "skip")
			mu.Lock()
			skip = n
			mu.Unlock()
			rapid.SampledFrom([]func(*rapid.T){m.append, m.delete, m.set}).Draw(t, "op")(t)
			mu.Lock()
			skip = -1
			before, after := before, after
			mu.Unlock()
			if before == nil {
				return
			}
			torn := maps.Clone(after)
			for name, b := range after {
				old := before[name]
				if len(old) != len(b) || bytes.Equal(old, b) {
					continue
				}
				mixed := bytes.Clone(b)
				for at := 0; at < len(b); at += 512 {
					if end := min(at+512, len(b)); !bytes.Equal(old[at:end], b[at:end]) && rapid.Bool().Draw(t, "lost") {
						copy(mixed[at:end], old[at:end])
					}
				}
				torn[name] = mixed
			}
			err := m.engine.Close()
			forget()
			crashes++
			dir := filepath.Join(base, fmt.Sprint(crashes))
			err = errors.Join(err, os.Mkdir(dir, 0o700), torn.write(filepath.Join(dir, "raft-log")), openAt(dir))
			if err != nil {
				t.Fatal(err)
			}
			if err = compare(m.engine, m.groups); err == nil {
				return
			}
			for name := range m.groups {
				if _, ok := acked[name]; !ok { // the group was made before the crash or with it
					acked[name] = modelGroup{map[uint64]raft.Log{}, map[string]string{}}
				}
			}
			if err2 := compare(m.engine, acked); err2 != nil {
				t.Fatalf("neither what was written: %v,\nnor what was acknowledged: %v", err, err2)
			}
			m.groups = acked
		}
		t.Repeat(map[string]func(*rapid.T){
			"append": m.append, "delete": m.delete, "set": m.set, "remove": m.remove, "crash": crash, "crash again": crash,
			"": func(t *rapid.T) {
				if err := compare(m.engine, m.groups); err != nil {
					t.Fatal(err)
				}
			},
		})
	})
}

// Of a closed store the last commit is protected too, though sectors of it are
// zeros: a crash could have left it like that, but the store was closed after it.
func TestLastCommitOfAClosedStore(t *testing.T) {
	path := newPath(t)
	s := open(t, path, nil)
	mustStore(t, group(t, s, "g"), []*raft.Log{{Index: 1, Data: append([]byte("some data"), make([]byte, 4096)...)}})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	flip(t, path, "some data")
	if _, err := logstore.Open(path, nil); !errors.Is(err, storage.ErrDamaged) {
		t.Errorf("got %v, want ErrDamaged", err)
	}
}

// When the power fails, what was not synced is not on disk; what was acknowledged is,
// and what was read when the store was opened, though its fsync had failed before.
func TestPowerLoss(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		base := newDir(t)
		m := &model{strict: true, groups: map[string]modelGroup{}}
		var mu sync.Mutex   // protects the fields below: the cleaner and the preparer sync too
		disk := make(image) // what was synced
		failing := false
		openAt := func(dir string) error {
			o := logstore.SyncBy(logstore.Options{CacheEntries: 2}, func(f *os.File) error {
				b, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<20))
				mu.Lock()
				defer mu.Unlock()
				if failing {
					return errInjected
				}
				disk[strings.TrimSuffix(filepath.Base(f.Name()), ".new")] = b
				return err
			})
			e, err := logstore.OpenEngine(logstore.Journal, dir, logstore.InSegmentsOf(*o, tinySegment))
			if err == nil {
				m.engine = e
			}
			return err
		}
		if err := openAt(base); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = m.engine.Close() }()
		path, failures := base, 0
		fail := func(t *rapid.T) {
			mu.Lock()
			left, err := imageOf(filepath.Join(path, "raft-log"))
			for name := range left {
				if left[name] = disk[name]; strings.HasSuffix(name, ".new") {
					delete(left, name)
				}
			}
			mu.Unlock()
			failures++
			path = filepath.Join(base, fmt.Sprint(failures))
			err = errors.Join(err, m.engine.Close(), os.Mkdir(path, 0o700), left.write(filepath.Join(path, "raft-log")))
			disk = maps.Clone(left)
			if err := errors.Join(err, openAt(path)); err != nil {
				t.Fatal(err)
			}
		}
		failSync := func(t *rapid.T) {
			name := rapid.SampledFrom(modelNames).Draw(t, "group")
			mg, ok := m.groups[name]
			if !ok {
				return
			}
			g, err := m.engine.Group(name)
			if err != nil {
				t.Fatal(err)
			}
			mu.Lock()
			failing = true
			mu.Unlock()
			if err := g.Set([]byte("a"), []byte("unknown")); !errors.Is(err, storage.ErrFailed) {
				t.Fatalf("got %v, want ErrFailed", err)
			}
			err = m.engine.Close()
			mu.Lock()
			failing = false
			mu.Unlock()
			if err := errors.Join(err, openAt(path)); err != nil {
				t.Fatal(err)
			}
			g, err = m.engine.Group(name)
			if err != nil {
				t.Fatal(err)
			}
			value, err := g.Get([]byte("a"))
			if err != nil {
				t.Fatal(err)
			}
			if string(value) == "unknown" {
				mg.stable["a"] = "unknown"
			}
			fail(t)
		}
		t.Repeat(map[string]func(*rapid.T){
			"append": m.append, "append more": m.append, "delete": m.delete, "set": m.set, "remove": m.remove, "fail": fail, "fail to sync": failSync,
			"": func(t *rapid.T) {
				if err := compare(m.engine, m.groups); err != nil {
					t.Fatal(err)
				}
			},
		})
	})
}
