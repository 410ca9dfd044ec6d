package machine

import (
	"reflect"
	"testing"

	"pgregory.net/rapid"
)

// An estate is the dumb model of leases and pools: the owner of every integer, and the
// lease of every key.
type estate struct {
	leases map[LeaseID]Lease
	keys   map[string]LeaseID
	pools  map[string]*estatePool
	token  Token
}

type estatePool struct {
	first, last uint64
	blocks      map[uint64]*Allocation // by each of their integers
}

func (es *estate) allocate(a *Allocate) (*Allocation, error) {
	p := es.pools[a.Pool]
	if p == nil {
		return nil, ErrPoolNotFound
	}
	if _, ok := es.leases[a.Session]; a.Session != 0 && !ok {
		return nil, ErrLeaseNotFound
	}
	for first := p.first; first <= p.last; first++ {
		if a.Exact && first != a.At || a.Align > 1 && first%a.Align != 0 {
			continue
		}
		free := true
		for n := first; n < first+a.Size; n++ {
			free = free && n <= p.last && p.blocks[n] == nil
		}
		if !free {
			continue
		}
		es.token++
		block := &Allocation{a.Pool, first, a.Size, a.Session, es.token, a.Label}
		for n := first; n < first+a.Size; n++ {
			p.blocks[n] = block
		}
		return block, nil
	}
	return nil, ErrPoolExhausted
}

func (es *estate) end(id LeaseID) (keys int) {
	delete(es.leases, id)
	for k, lease := range es.keys {
		if lease == id {
			delete(es.keys, k)
			keys++
		}
	}
	for _, p := range es.pools {
		for n, block := range p.blocks {
			if block.Session == id {
				delete(p.blocks, n)
			}
		}
	}
	return keys
}

func TestLeasesAndPoolsEqualModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := newRig(t)
		es := &estate{leases: map[LeaseID]Lease{}, keys: map[string]LeaseID{}, pools: map[string]*estatePool{}}
		check := func(res Result, want error) {
			t.Helper()
			if res.Err != want {
				t.Fatalf("got error %v, want %v", res.Err, want)
			}
		}
		for range rapid.IntRange(1, 40).Draw(t, "commands") {
			id := LeaseID(rapid.IntRange(1, 3).Draw(t, "lease"))
			_, live := es.leases[id]
			name := pick(t, "pool", "p", "q")
			p := es.pools[name]
			switch rapid.IntRange(0, 12).Draw(t, "command") {
			case 0:
				ttl := pick[uint64](t, "ttl", MinTTL, MaxTTL)
				if res := r.apply(&Grant{ID: id, TTL: ttl}); live {
					check(res, ErrLeaseExists)
				} else {
					check(res, nil)
					es.leases[id] = Lease{ID: id, TTL: ttl}
				}
			case 1:
				if res := r.apply(&Revoke{id}); !live {
					check(res, ErrLeaseNotFound)
				} else if check(res, nil); len(res.Changes) != es.end(id) {
					t.Fatalf("changes: got %d", len(res.Changes))
				}
			case 2:
				other := LeaseID(rapid.IntRange(1, 3).Draw(t, "other"))
				res := r.apply(&Expire{[]LeaseID{id, other}})
				check(res, nil)
				n := es.end(id)
				if other != id {
					n += es.end(other)
				}
				if len(res.Changes) != n {
					t.Fatalf("changes: got %d, want %d", len(res.Changes), n)
				}
			case 3, 4:
				key, lease := pick(t, "key", "a", "b", "c"), pick(t, "attach", id, 0)
				if res := r.apply(&Txn{Then: []Op{&Put{Key: key, Lease: lease}}}); lease != 0 && !live {
					check(res, ErrLeaseNotFound)
				} else {
					check(res, nil)
					es.keys[key] = lease
				}
			case 5:
				key := pick(t, "key", "a", "b", "c")
				check(r.apply(&Txn{Then: []Op{&Delete{Span: Span{Key: key}}}}), nil)
				delete(es.keys, key)
			case 6:
				first := rapid.Uint64Range(0, 12).Draw(t, "first")
				last := first + rapid.Uint64Range(0, 12).Draw(t, "more")
				res := r.apply(&DefinePool{Pool{name, first, last}})
				want := error(nil)
				if p != nil {
					for n := range p.blocks {
						if n < first || n > last {
							want = ErrPoolInUse
						}
					}
				}
				if check(res, want); want == nil {
					next := &estatePool{first: first, last: last, blocks: map[uint64]*Allocation{}}
					if p != nil {
						next.blocks = p.blocks
					}
					es.pools[name] = next
				}
			case 7:
				res := r.apply(&RemovePool{name})
				switch {
				case p == nil:
					check(res, ErrPoolNotFound)
				case len(p.blocks) > 0:
					check(res, ErrPoolInUse)
				default:
					check(res, nil)
					delete(es.pools, name)
				}
			case 8, 9:
				a := &Allocate{Pool: name, Size: rapid.Uint64Range(1, 4).Draw(t, "size"), Align: rapid.Uint64Range(0, 4).Draw(t, "align"),
					Session: pick(t, "session", id, 0), Label: pick(t, "label", "", "x"), Exact: pick(t, "exact", false, false, true)}
				if a.Exact {
					a.At = rapid.Uint64Range(0, 25).Draw(t, "at")
				}
				res := r.apply(a)
				block, err := es.allocate(a)
				if check(res, err); err == nil && (res.First != block.First || res.Token != block.Token) {
					t.Fatalf("got block %d under %d, want %+v", res.First, res.Token, block)
				}
			case 10:
				first, token := rapid.Uint64Range(0, 25).Draw(t, "free"), Token(rapid.Uint64Range(0, uint64(es.token)).Draw(t, "token"))
				if p != nil && p.blocks[first] != nil && rapid.Bool().Draw(t, "its token") {
					token = p.blocks[first].Token
				}
				res := r.apply(&Free{name, first, token})
				if p == nil || p.blocks[first] == nil || p.blocks[first].First != first || p.blocks[first].Token != token {
					check(res, ErrNotHeld)
					break
				}
				check(res, nil)
				for n, block := range p.blocks {
					if block.Token == token {
						delete(p.blocks, n)
					}
				}
			case 11:
				r.swap()
			case 12:
				c := &Checkpoint{}
				for range rapid.IntRange(1, 3).Draw(t, "checkpoints") {
					set := Left{LeaseID(rapid.IntRange(1, 3).Draw(t, "checkpoint")), pick[uint64](t, "left", 0, 1, MinTTL, MinTTL+1, MaxTTL)}
					c.Leases = append(c.Leases, set)
					if l, ok := es.leases[set.ID]; ok {
						if l.Left = set.Left; l.Left > l.TTL {
							l.Left = l.TTL
						}
						es.leases[set.ID] = l
					}
				}
				if check(r.apply(c), nil); rapid.Bool().Draw(t, "restore") {
					r.swap()
				}
			}
			es.checkReads(t, r.m.View())
			es.checkReads(t, r.twin.View())
		}
		r.same()
	})
}

func (es *estate) checkReads(t *rapid.T, v *View) {
	t.Helper()
	leases := map[LeaseID]Lease{}
	v.Leases(func(l *Lease) bool {
		leases[l.ID] = *l
		return true
	})
	if !reflect.DeepEqual(leases, es.leases) {
		t.Fatalf("leases: got %v, want %v", leases, es.leases)
	}
	for id := LeaseID(1); id <= 3; id++ {
		var want []string
		for _, k := range []string{"a", "b", "c"} {
			if es.keys[k] == id {
				want = append(want, k)
			}
		}
		if got := v.Attached(id); !reflect.DeepEqual(got, want) {
			t.Fatalf("attached to %d: got %v, want %v", id, got, want)
		}
	}
	for _, k := range []string{"a", "b", "c"} {
		e := v.Get(k)
		lease, ok := es.keys[k]
		if (e != nil) != ok || e != nil && e.Lease != lease {
			t.Fatalf("%s: got %+v, want lease %d", k, e, lease)
		}
	}
	for _, name := range []string{"p", "q"} {
		p, got := es.pools[name], v.Pool(name)
		if (p != nil) != (got != nil) || p != nil && *got != (Pool{name, p.first, p.last}) {
			t.Fatalf("pool %s: got %+v, want %+v", name, got, p)
		}
		if p == nil {
			continue
		}
		blocks := map[uint64]*Allocation{}
		v.Allocations(name, 0, func(a *Allocation) bool {
			for n := a.First; n < a.First+a.Size; n++ {
				blocks[n] = a
			}
			return true
		})
		if !reflect.DeepEqual(blocks, p.blocks) {
			t.Fatalf("blocks of %s: got %v, want %v", name, blocks, p.blocks)
		}
	}
}
