package storage_test

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/meshkv/meshkv/storage"
)

// filled is the directory of a closed store with n overwrites, of which the first
// ones are checkpointed.
func filled(t *testing.T, checkpointed, n uint64) string {
	t.Helper()
	dir := fastDir(t)
	if checkpointed > 0 {
		s := mustOpen(t, dir, &storage.Options{CheckpointIdle: time.Millisecond})
		mustLoad(t, s)
		for seq := uint64(1); seq <= checkpointed; seq++ {
			put(t, s, seq)
		}
		waitCheckpoints(t, s, 1)
		for deadline := time.Now().Add(20 * time.Second); s.Stats().LogBytes > 64; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("the log is not taken over")
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	s := mustOpen(t, dir, &storage.Options{CheckpointIdle: -1})
	mustLoad(t, s)
	for seq := checkpointed + 1; seq <= n; seq++ {
		put(t, s, seq)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

func copyDir(t *testing.T, from string) string {
	t.Helper()
	to := fastDir(t)
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	return to
}

func lastSegment(t *testing.T, dir string) string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "wal-*.log"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no segment: %v", err)
	}
	return paths[len(paths)-1]
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func writeFile(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// sizeAfter is the size of the only segment after n overwrites.
func sizeAfter(t *testing.T, n uint64) int {
	t.Helper()
	return len(readFile(t, lastSegment(t, filled(t, 0, n))))
}

func loadDir(t *testing.T, dir string) (storage.State, error) {
	t.Helper()
	s := mustOpen(t, dir, &storage.Options{CheckpointIdle: -1})
	defer s.Close()
	return s.Load(context.Background())
}

// A log that was cut short anywhere in the last record is that of one commit
// less; so is one whose last sectors were never written. It goes on from there.
func TestTornTailAtEveryByte(t *testing.T) {
	dir := filled(t, 0, 4)
	whole := readFile(t, lastSegment(t, dir))
	before := sizeAfter(t, 3)
	for cut := before; cut < len(whole); cut++ {
		for _, zeros := range []bool{false, true} {
			b := append([]byte{}, whole[:cut]...)
			if zeros {
				b = append(b, make([]byte, len(whole)-cut)...)
				if cut%512 != 0 && cut != before {
					continue // a sector is written as a whole
				}
			}
			at := copyDir(t, dir)
			writeFile(t, lastSegment(t, at), b)
			s := mustOpen(t, at, &storage.Options{CheckpointIdle: -1})
			st, err := s.Load(context.Background())
			if err == nil {
				err = checkOverwritten(st, 3)
			}
			if err != nil {
				t.Fatalf("cut at %d of %d, zeros %v: %v", cut, len(whole), zeros, err)
			}
			put(t, s, 4)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			st, err = loadDir(t, at)
			if err == nil {
				err = checkOverwritten(st, 4)
			}
			if err != nil {
				t.Fatalf("cut at %d, written again: %v", cut, err)
			}
			if err := os.RemoveAll(at); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// Cutting more than the last record leaves an older state and cannot be told
// from a crash, but cutting into the segment's header can.
func TestTornHeader(t *testing.T) {
	dir := filled(t, 0, 4)
	for _, n := range []int{0, 1, 63} {
		at := copyDir(t, dir)
		writeFile(t, lastSegment(t, at), readFile(t, lastSegment(t, at))[:n])
		if _, err := loadDir(t, at); !errors.Is(err, storage.ErrDamaged) {
			t.Errorf("header of %d bytes: got %v, want ErrDamaged", n, err)
		}
	}
}

func TestEveryBitOfTheLogCounts(t *testing.T) {
	dir := filled(t, 0, 3)
	whole := readFile(t, lastSegment(t, dir))
	for i := range 8 * len(whole) {
		if i%8 != (i/8)%8 && !*thorough {
			continue
		}
		b := append([]byte{}, whole...)
		b[i/8] ^= 1 << (i % 8)
		writeFile(t, lastSegment(t, dir), b)
		if _, err := loadDir(t, dir); !errors.Is(err, storage.ErrDamaged) {
			t.Fatalf("bit %d of byte %d of %d: got %v, want ErrDamaged", i%8, i/8, len(whole), err)
		}
	}
}

// thorough: every bit of every byte, instead of some.
var thorough = flag.Bool("thorough", false, "flip every bit, of the log and of small pages")

// A flipped bit in the bbolt file is found, or does not matter: never another
// state, and never a crash.
func TestBitFlipsInTheCells(t *testing.T) {
	dir := filled(t, 3, 3)
	path := filepath.Join(dir, "meshkv.db")
	whole := readFile(t, path)
	rng := rand.New(rand.NewPCG(rand.Uint64(), 1))
	value := strings.Index(string(whole), "some value of the cell")
	if value < 0 {
		t.Fatal("no cell in the file")
	}
	harmless := 0
	try := func(at int, must bool) {
		b := append([]byte{}, whole...)
		b[at/8] ^= 1 << (at % 8)
		writeFile(t, path, b)
		st, err := loadDir(t, dir)
		switch {
		case errors.Is(err, storage.ErrDamaged):
		case err != nil:
			t.Fatalf("bit %d: got %v, want ErrDamaged", at, err)
		case must:
			t.Fatalf("bit %d: not found", at)
		default:
			harmless++
			if err := checkOverwritten(st, 3); err != nil {
				t.Fatalf("bit %d: %v", at, err)
			}
		}
	}
	for range 100 {
		try(rng.IntN(8*len(whole)), false)
	}
	for used := range len(whole) { // densely where there is data at all
		if whole[used] != 0 && rng.IntN(12) == 0 {
			try(8*used+rng.IntN(8), false)
		}
	}
	t.Logf("%d flips were harmless", harmless)
}

func TestDamagedFiles(t *testing.T) {
	segments := func(t *testing.T, dir string) []string {
		paths, _ := filepath.Glob(filepath.Join(dir, "wal-*.log"))
		return paths
	}
	remove := func(t *testing.T, path string) {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	for name, damage := range map[string]func(t *testing.T, dir string){
		"no cells":    func(t *testing.T, dir string) { remove(t, filepath.Join(dir, "meshkv.db")) },
		"empty cells": func(t *testing.T, dir string) { writeFile(t, filepath.Join(dir, "meshkv.db"), []byte{}) },
		"short cells": func(t *testing.T, dir string) { writeFile(t, filepath.Join(dir, "meshkv.db"), make([]byte, 9000)) },
		"garbage cells": func(t *testing.T, dir string) {
			writeFile(t, filepath.Join(dir, "meshkv.db"), []byte(strings.Repeat("garbage", 9000)))
		},
		"half the cells": func(t *testing.T, dir string) {
			b := readFile(t, filepath.Join(dir, "meshkv.db"))
			writeFile(t, filepath.Join(dir, "meshkv.db"), b[:8192])
		},
		"no log":       func(t *testing.T, dir string) { remove(t, lastSegment(t, dir)) },
		"no last part": func(t *testing.T, dir string) { remove(t, segments(t, dir)[len(segments(t, dir))-1]) },
		"another's log": func(t *testing.T, dir string) {
			writeFile(t, lastSegment(t, dir), readFile(t, lastSegment(t, filled(t, 2, 4))))
		},
		"a cell vanished":        func(t *testing.T, dir string) { storage.DeleteElement(t, dir, "cells") },
		"a clock entry vanished": func(t *testing.T, dir string) { storage.DeleteElement(t, dir, "clock") },
		"later version of the log": func(t *testing.T, dir string) {
			storage.SetSegmentVersion(t, lastSegment(t, dir), 2)
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filled(t, 2, 4)
			damage(t, dir)
			_, err := loadDir(t, dir)
			var detail *storage.DamageError
			if !errors.Is(err, storage.ErrDamaged) || !errors.As(err, &detail) || detail.File == "" || detail.Reason == "" {
				t.Fatalf("got %v, want a DamageError", err)
			}
			if got, want := errors.Is(err, storage.ErrFormat), strings.Contains(name, "version"); got != want {
				t.Errorf("ErrFormat: got %v, want %v", got, want)
			}
			if _, err := storage.Discard(dir); err != nil {
				t.Fatal(err)
			}
			if st, err := loadDir(t, dir); err != nil || len(st.Keyspaces) != 0 {
				t.Fatalf("after discard: got %+v, %v", st, err)
			}
		})
	}
}

// crashChild overwrites for ever and prints what is acknowledged.
func crashChild(dir string) {
	s, err := storage.Open(dir, &storage.Options{CheckpointBytes: 4 << 10, CheckpointIdle: 5 * time.Millisecond})
	if err != nil {
		fmt.Println("error", err)
		return
	}
	st, err := s.Load(context.Background())
	if err != nil {
		fmt.Println("error", err)
		return
	}
	for seq := uint64(st.HLCBound) + 1; ; seq++ {
		if err := s.Commit(context.Background(), overwrite(seq)); err != nil {
			fmt.Println("error", err)
			return
		}
		fmt.Println(seq)
	}
}

// A process that is killed at any moment, while it commits, checkpoints or
// starts, loses nothing that it had acknowledged.
func TestKilledProcess(t *testing.T) {
	dir := fastDir(t)
	rounds := 8
	var acked uint64
	for round := range rounds {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "MESHKV_STORAGE_CRASH_DIR="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// Killed after a random number of commits, in the middle of the next.
		stop := acked + uint64(rand.IntN(300))
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			n, err := strconv.ParseUint(lines.Text(), 10, 64)
			if err != nil {
				t.Fatalf("round %d: %s", round, lines.Text())
			}
			acked = n
			if n >= stop {
				_ = cmd.Process.Kill() // and read on what it had printed before
			}
		}
		_ = cmd.Wait()
		st, err := loadDir(t, dir)
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		got := uint64(st.HLCBound)
		if got != acked && got != acked+1 {
			t.Fatalf("round %d: got %d, acknowledged were %d", round, got, acked)
		}
		if err := checkOverwritten(st, got); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		acked = got
	}
	if _, err := os.Stat(filepath.Join(dir, "meshkv.db")); errors.Is(err, fs.ErrNotExist) {
		t.Fatal("no cells")
	}
	t.Logf("%d commits in %d rounds", acked, rounds)
}
