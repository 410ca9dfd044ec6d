package keyspace

import (
	"fmt"
	"testing"
	"time"

	"github.com/meshkv/meshkv/consensus/bridge"
	"github.com/meshkv/meshkv/consensus/machine"
	"github.com/meshkv/meshkv/gossip"
	"github.com/meshkv/meshkv/storage"
)

// BenchmarkMirrorFeed is what a voter pays for one change that it feeds: making the op,
// applying it, and sending it to so many peers, 16 in a frame.
func BenchmarkMirrorFeed(b *testing.B) {
	for _, peers := range []int{0, 2} {
		b.Run(fmt.Sprintf("peers=%d", peers), func(b *testing.B) {
			now := time.Now()
			k, err := OpenMirror("ks~strong#1", mirrorOrigin, testEnv(), storage.KeyspaceState{}, now)
			if err != nil {
				b.Fatal(err)
			}
			for i := range peers {
				k.LinkUp(now, gossip.PeerID(fmt.Sprint(i)), gossip.RoleDirect)
			}
			m := machine.New()
			var all [][]*machine.Change
			value := make([]byte, 100)
			for i := range b.N {
				cmd, err := (&machine.Command{Wall: now.UnixMilli(), Body: &machine.Txn{
					Then: []machine.Op{&machine.Put{Key: fmt.Sprintf("key%06d", i%100_000), Value: value}},
				}}).AppendBinary(nil)
				if err != nil {
					b.Fatal(err)
				}
				all = append(all, m.Apply(uint64(i+1), cmd).Changes)
			}
			var buf []byte
			b.ReportAllocs()
			b.ResetTimer()
			for i, changes := range all {
				if err := k.Feed(now, bridge.Ops(mirrorOrigin, changes)); err != nil {
					b.Fatal(err)
				}
				if i%16 > 0 {
					continue
				}
				for p := range peers {
					for ok := true; ok; {
						buf, ok = k.NextFrame(now, gossip.PeerID(fmt.Sprint(p)), buf[:0], 64<<10)
					}
				}
			}
		})
	}
}

// BenchmarkMirrorFeedState is feeding the state of 100,000 keys to an empty mirror, and
// to one that has it.
func BenchmarkMirrorFeedState(b *testing.B) {
	now := time.Now()
	m := machine.New()
	for i := range 100_000 {
		cmd, err := (&machine.Command{Wall: now.UnixMilli(), Body: &machine.Txn{
			Then: []machine.Op{&machine.Put{Key: fmt.Sprintf("key%06d", i), Value: make([]byte, 100)}},
		}}).AppendBinary(nil)
		if err != nil {
			b.Fatal(err)
		}
		m.Apply(uint64(i+1), cmd)
	}
	st := bridge.StateOf(mirrorOrigin, m.View())
	open := func() *Keyspace {
		k, err := OpenMirror("ks~strong#1", mirrorOrigin, testEnv(), storage.KeyspaceState{}, now)
		if err != nil {
			b.Fatal(err)
		}
		return k
	}
	fill := func(k *Keyspace) {
		if err := k.FeedState(b.Context(), st); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("empty", func(b *testing.B) {
		for range b.N {
			fill(open())
		}
	})
	b.Run("equal", func(b *testing.B) {
		k := open()
		fill(k)
		b.ResetTimer()
		for range b.N {
			fill(k)
		}
	})
}
