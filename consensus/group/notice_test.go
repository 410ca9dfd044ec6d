package group_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meshkv/meshkv/consensus/streams/memnet"
)

// Followers learn of a lone commit as soon as they can: after the way there, back,
// and there again; of commits that follow each other, a little later.
func TestFollowersLearnOfCommits(t *testing.T) {
	const oneWay = 3 * time.Millisecond
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, []string{"g"}, nil)
		defer c.stop()
		leader := c.put("g", "a=0")
		c.equal("g")
		for _, o := range c.without(leader) {
			for _, reply := range []bool{false, true} {
				c.network.Delay(memnet.Flow{Dialer: leader.id, Acceptor: o.id, Reply: reply}, oneWay)
			}
		}
		for i, pause := range []time.Duration{1 * time.Second, 10 * time.Second, 100 * time.Millisecond, 0, 0, 0, 50 * time.Millisecond} {
			time.Sleep(pause)
			begin := time.Now()
			c.put("g", fmt.Sprint("a=", i))
			committed := time.Now()
			if took := committed.Sub(begin); took > 2*oneWay {
				t.Errorf("commit %d took %v", i, took)
			}
			for _, n := range c.nodes {
				await(t, "it is known", func() bool { return n.fsms["g"].get("a") == fmt.Sprint(i) })
			}
			most := oneWay + time.Millisecond // by which await looks
			if pause < 80*time.Millisecond {
				most += 40 * time.Millisecond
			}
			if took := time.Since(committed); took > most {
				t.Errorf("commit %d was known after %v, want %v", i, took, most)
			}
		}
	})
}

// A follower that waits for a commit learns of it at once, however fast commits follow
// each other.
func TestFollowersLearnAtOnceIfTheyAsk(t *testing.T) {
	const oneWay = 3 * time.Millisecond
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, []string{"g"}, nil)
		defer c.stop()
		leader := c.put("g", "a=0")
		c.equal("g")
		for _, o := range c.without(leader) {
			for _, reply := range []bool{false, true} {
				c.network.Delay(memnet.Flow{Dialer: leader.id, Acceptor: o.id, Reply: reply}, oneWay)
			}
		}
		for i := range 20 {
			c.put("g", fmt.Sprint("a=", i))
			s, err := leader.groups["g"].Status()
			if err != nil {
				t.Fatal(err)
			}
			asks := c.without(leader)[i%2]
			begin := time.Now()
			leader.groups["g"].Hasten(asks.id, s.Commit)
			await(t, "it is known", func() bool { return asks.fsms["g"].get("a") == fmt.Sprint(i) })
			// Its answer to the entry may come after that of the other.
			if took := time.Since(begin); took > 3*oneWay+time.Millisecond {
				t.Errorf("commit %d was known after %v", i, took)
			}
		}
	})
}

// A follower whose notice got lost, or that was started anew, learns of a commit all
// the same, and before Raft's own timer tells it.
func TestFollowersLearnWithoutNotice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, []string{"g"}, nil)
		defer c.stop()
		leader := c.put("g", "a=0")
		c.equal("g")
		time.Sleep(time.Second)
		late := c.without(leader)[0]
		toLate := memnet.Flow{Dialer: leader.id, Acceptor: late.id}
		c.network.Hold(toLate)
		c.put("g", "a=1")
		c.network.Release(toLate)
		begin := time.Now()
		c.equal("g")
		if took := time.Since(begin); took > 100*time.Millisecond {
			t.Errorf("one that was silent: %v", took)
		}
		c.close(late)
		c.start(late)
		begin = time.Now()
		c.equal("g")
		if took := time.Since(begin); took > 300*time.Millisecond {
			t.Errorf("one that was started anew: %v", took)
		}
	})
}

// A follower that was away for long gets what it missed as soon as it is back: Raft
// alone would try after up to 10 s.
func TestLongAbsence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, []string{"g"}, nil)
		defer c.stop()
		leader := c.put("g", "a=0")
		c.equal("g")
		late := c.without(leader)[0]
		c.close(late)
		for i := range 60 {
			c.put("g", fmt.Sprint("a=", i), c.without(late)...)
			time.Sleep(time.Second)
		}
		c.start(late)
		begin := time.Now()
		c.equal("g")
		if took := time.Since(begin); took > 2*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// In an idle group there are heartbeats and nothing else.
func TestIdleGroupIsQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, []string{"g"}, nil)
		defer c.stop()
		leader := c.put("g", "a=0")
		c.equal("g")
		time.Sleep(time.Second)
		sent := func() uint64 {
			s, err := leader.groups["g"].Status()
			if err != nil {
				t.Fatal(err)
			}
			return s.Appends
		}
		before := sent()
		time.Sleep(time.Minute)
		if n := sent() - before; n != 0 {
			t.Errorf("%d appends in an idle minute", n)
		}
		c.put("g", "a=1")
		c.equal("g")
		time.Sleep(time.Second)
		if n := sent() - before; n != 4 {
			t.Errorf("%d appends for a commit, want one and a notice for each follower", n)
		}
	})
}
