package group_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meshkv/meshkv/consensus/streams/memnet"
)

// beatsAlone is how many heartbeats of the groups did not go with others, and the terms
// of all replicas.
func (c *cluster) beatsAlone(names ...string) (alone uint64, terms string) {
	c.t.Helper()
	for _, name := range names {
		for _, n := range c.nodes {
			s, err := n.groups[name].Status()
			if err != nil {
				c.t.Fatal(err)
			}
			alone += s.Beats
			terms += fmt.Sprint(s.Term, " ")
		}
	}
	return alone, terms
}

// With nothing to do, groups keep their leaders by few messages, and send no
// heartbeat alone.
func TestCoalescedHeartbeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var names []string
		for i := range 10 {
			names = append(names, fmt.Sprint("g", i))
		}
		c := newBeatingCluster(t, 3, names, nil)
		defer c.stop()
		for _, name := range names {
			c.put(name, "a=1")
			c.equal(name)
		}
		time.Sleep(time.Second)
		alone, terms := c.beatsAlone(names...)
		var messages, sent uint64
		for _, n := range c.nodes {
			s := n.beats.Stats()
			messages, sent = messages-s.Messages, sent-s.Beats
		}
		const seconds = 30
		time.Sleep(seconds * time.Second)
		for _, n := range c.nodes {
			s := n.beats.Stats()
			messages, sent = messages+s.Messages, sent+s.Beats
		}
		aloneNow, termsNow := c.beatsAlone(names...)
		if aloneNow != alone || termsNow != terms {
			t.Errorf("%d heartbeats went alone; the terms were %s, and are %s", aloneNow-alone, terms, termsNow)
		}
		if each := sent / seconds / 20; each < 6 || each > 20 {
			t.Errorf("each follower got %d heartbeats a second", each)
		}
		if most := uint64(seconds * 6 * 25); messages > most {
			t.Errorf("got %d messages, want at most %d", messages, most)
		}
	})
}

// Where calls do not get through, heartbeats go alone, in time.
func TestHeartbeatsWithoutCalls(t *testing.T) {
	for _, hanging := range []bool{false, true} {
		t.Run(fmt.Sprint("hanging ", hanging), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newBeatingCluster(t, 3, []string{"g"}, nil)
				defer c.stop()
				c.put("g", "a=1")
				c.equal("g")
				time.Sleep(time.Second)
				before, terms := c.beatsAlone("g")
				for _, n := range c.nodes {
					n.beats.hang.Store(hanging)
					n.beats.fail.Store(!hanging)
				}
				time.Sleep(10 * time.Second)
				after, now := c.beatsAlone("g")
				if now != terms {
					t.Errorf("the terms were %s, and are %s", terms, now)
				}
				if after-before < 2*10*2 {
					t.Errorf("%d heartbeats in 10 s", after-before)
				}
			})
		})
	}
}

// A replica that was opened anew between two heartbeats learns what is committed.
func TestReopenedBetweenHeartbeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newBeatingCluster(t, 3, []string{"g"}, nil)
		defer c.stop()
		leader := c.put("g", "a=1")
		c.equal("g")
		time.Sleep(time.Second)
		n := c.without(leader)[0]
		if err := n.groups["g"].Close(background); err != nil {
			t.Fatal(err)
		}
		n.open("g")
		begin := time.Now()
		c.equal("g")
		if took := time.Since(begin); took > 3*time.Second { // a heartbeat or two, and twice commitTimeout
			t.Errorf("it took %v", took)
		}
	})
}

// Reads wait for no window.
func TestReadsPassHeartbeats(t *testing.T) {
	const oneWay = time.Millisecond
	synctest.Test(t, func(t *testing.T) {
		c := newBeatingCluster(t, 3, []string{"g"}, nil)
		defer c.stop()
		leader := c.put("g", "a=1")
		c.equal("g")
		g := leader.groups["g"]
		for range 4 { // its term is settled, and there is a stream to each voter: they are asked in turns
			if _, err := g.ReadIndex(background); err != nil {
				t.Fatal(err)
			}
		}
		for _, o := range c.without(leader) {
			for _, reply := range []bool{false, true} {
				c.network.Delay(memnet.Flow{Dialer: leader.id, Acceptor: o.id, Reply: reply}, oneWay)
			}
		}
		for range 10 {
			time.Sleep(33 * time.Millisecond)
			begin := time.Now()
			if _, err := g.ReadIndex(background); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(begin); took > 2*oneWay {
				t.Errorf("a read took %v", took)
			}
		}
	})
}

// A leader that has ceased to lead tells nobody that it does.
func TestNoHeartbeatsOfFormerLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newBeatingCluster(t, 3, []string{"g"}, nil)
		defer c.stop()
		leader := c.put("g", "a=1")
		c.equal("g")
		time.Sleep(time.Second)
		g := leader.groups["g"]
		if err := g.Remove(background, leader.id, g.Configuration().Index); err != nil {
			t.Fatal(err)
		}
		await(t, "it does not lead", func() bool { now, _ := g.Leadership(); return !now.Leads })
		before := leader.beats.Stats().Beats
		time.Sleep(time.Second)
		if n := leader.beats.Stats().Beats - before; n > 0 {
			t.Errorf("%d heartbeats of it", n)
		}
	})
}
