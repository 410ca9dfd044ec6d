package overlay

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/meshkv/meshkv/client"
)

// ErrNotOwner: the address is not this host's, or a later claim to it has been seen.
var ErrNotOwner = errors.New("the address belongs to another host")

// poolName is the pool of the keyspace out of which the /24s are allocated.
const poolName = "addresses"

// endPatience bounds how long the end of a session or lock is waited for; the TTL ends
// what does not end within it.
const endPatience = 2 * time.Second

// An IPAM gives out addresses of one network, by a strong keyspace.
type IPAM struct {
	Strong client.Strong // the keyspace IPAMKeyspace
	Pool   netip.Prefix  // IPv4, /24 or larger: all addresses
	Node   string        // whom claims are made for
	// TTL is how long a lease outlives a host that is gone.
	TTL time.Duration
}

// A Lease is a /24 that belongs to a host as long as its session lives.
type Lease struct {
	Claim
	session client.Session
}

// Lost is closed when the lease has ended, or may have: never later than another host
// can be given the same /24.
func (l *Lease) Lost() <-chan struct{} { return l.session.Lost() }

// End gives the lease up, with all claims that were made under it.
func (l *Lease) End(ctx context.Context) error { return l.session.Close(ctx) }

// Session is what ends the lease.
func (l *Lease) Session() client.SessionID { return l.session.ID() }

// Take leases a /24: that of former, a lease that was lost, if it is not zero and the /24
// is free, or else the lowest that is free. client.ErrPoolExhausted if there is none.
func (m *IPAM) Take(ctx context.Context, former Claim) (*Lease, error) {
	pool := m.Strong.Allocator(poolName)
	first := number(m.Pool.Masked().Addr())
	if err := pool.Define(ctx, first, first+1<<(32-m.Pool.Bits())-1); err != nil {
		return nil, fmt.Errorf("define the pool: %w", err)
	}
	if former.Token > 0 {
		if err := m.release(ctx, former); err != nil {
			return nil, err
		}
	}
	session, err := m.Strong.NewSession(ctx, &client.SessionOptions{TTL: m.TTL})
	if err != nil {
		return nil, err
	}
	l := &Lease{session: session}
	if l.Claim, err = m.take(ctx, pool, session, former); err != nil {
		return nil, errors.Join(err, finally(ctx, l.End))
	}
	return l, nil
}

// finally calls f even though ctx may be over.
func finally(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endPatience)
	defer cancel()
	return f(ctx)
}

func (m *IPAM) take(ctx context.Context, pool client.Allocator, session client.Session, former Claim) (Claim, error) {
	o := client.AllocateOptions{Size: blockSize, Align: blockSize, Session: session.ID(), Label: m.Node}
	err := client.ErrPoolExhausted // of what is not asked for
	var got client.Allocation
	if former.Token > 0 {
		o.At, o.Exact = number(former.Prefix.Addr()), true
		got, err = pool.Allocate(ctx, &o)
	}
	if errors.Is(err, client.ErrPoolExhausted) {
		o.At, o.Exact = 0, false
		got, err = pool.Allocate(ctx, &o)
	}
	if err != nil {
		return Claim{}, fmt.Errorf("allocate a /%d: %w", blockBits, err)
	}
	c := Claim{Prefix: netip.PrefixFrom(addr(got.First), blockBits), Node: m.Node, Token: uint64(got.Token)}
	// The record and the allocation end with one session, in one command: a record
	// that is still there is of an allocation that is.
	return c, m.record(ctx, c, session, absent(c.Prefix))
}

// Allocations are the blocks of the pool that are given out, ascending.
func (m *IPAM) Allocations(ctx context.Context) ([]client.Allocation, error) {
	return m.Strong.Allocator(poolName).List(ctx)
}

// CheckLeases returns what is wrong with allocations, which are ascending, and with the
// claims read after them: nil if no two have an address in common and each /24 that is
// claimed is allocated under the claim's token.
func CheckLeases(blocks []client.Allocation, claims []Claim) error {
	var errs []error
	byToken := map[uint64]client.Allocation{}
	for i, b := range blocks {
		byToken[uint64(b.Token)] = b
		if i > 0 && blocks[i-1].First+blocks[i-1].Size > b.First {
			errs = append(errs, fmt.Errorf("%v of %s and %v of %s overlap", addr(blocks[i-1].First), blocks[i-1].Label, addr(b.First), b.Label))
		}
	}
	for _, c := range claims {
		b, ok := byToken[c.Token]
		if c.Prefix.Bits() == blockBits && (!ok || b.First != number(c.Prefix.Addr()) || b.Size != blockSize || b.Label != c.Node) {
			errs = append(errs, fmt.Errorf("%s claims %v under token %d, which is not allocated so", c.Node, c.Prefix, c.Token))
		}
	}
	return errors.Join(errs...)
}

// record writes a claim, if all compares hold; ErrNotOwner if one does not.
func (m *IPAM) record(ctx context.Context, c Claim, session client.Session, compares ...client.Compare) error {
	key, value, err := c.Encode()
	if err != nil {
		return err
	}
	put := &client.TxnPut{Key: key, Value: value, Session: session.ID()}
	done, err := m.Strong.Txn(ctx, &client.Txn{Compares: compares, Then: []client.TxnOp{{Put: put}}})
	if err == nil && !done.Succeeded {
		err = ErrNotOwner
	}
	if err != nil {
		return fmt.Errorf("record the claim to %v: %w", c.Prefix, err)
	}
	return nil
}

// release gives up a claim of this host whose session it has lost. The servers end that
// later, up to twice the TTL, and the claim would be in the way of this host's own next
// one until then. It does nothing to a claim with another token.
func (m *IPAM) release(ctx context.Context, c Claim) error {
	key, value, err := c.Encode()
	if err != nil {
		return err
	}
	_, err = m.Strong.Txn(ctx, &client.Txn{
		Compares: []client.Compare{{Key: key, Target: client.TargetValue, Relation: client.Equal, Value: value}},
		Then:     []client.TxnOp{{Delete: &client.TxnDelete{Key: key}}},
	})
	if err == nil && c.Prefix.Bits() == blockBits { // the record goes first: one that is there is of an allocation that is
		err = m.Strong.Allocator(poolName).Free(ctx, number(c.Prefix.Addr()), client.FencingToken(c.Token))
		if errors.Is(err, client.ErrNotHeld) {
			err = nil
		}
	}
	if err != nil {
		return fmt.Errorf("release the former claim to %v: %w", c.Prefix, err)
	}
	return nil
}

// absent is the condition that nobody claims p.
func absent(p netip.Prefix) client.Compare {
	return client.Compare{Key: p.String(), Target: client.TargetVersion, Relation: client.Equal}
}

// Move makes one address belong to the holder of l, whoever had it, if all of while
// hold, and ErrNotOwner otherwise. Its token is that of a lock on the address, which
// guards the write: of two moves at once, the later one stays.
func (m *IPAM) Move(ctx context.Context, l *Lease, ip netip.Addr, while ...client.Compare) (c Claim, err error) {
	if !m.Pool.Contains(ip) || ip == block(ip).Addr().Next() {
		return Claim{}, fmt.Errorf("%w: %v is not in %v, or a gateway's", client.ErrBadRequest, ip, m.Pool)
	}
	c = Claim{Prefix: address(ip), Node: m.Node}
	lock, err := m.Strong.Lock(ctx, c.Key(), &client.LockOptions{Session: l.session})
	if err != nil {
		return Claim{}, fmt.Errorf("lock %v: %w", ip, err)
	}
	defer func() { err = errors.Join(err, finally(ctx, lock.Unlock)) }()
	c.Token = uint64(lock.Token())
	return c, m.record(ctx, c, l.session, append(while, client.Guard(c.Key(), lock.Token()))...)
}

func number(ip netip.Addr) uint64 {
	b := ip.As4()
	return uint64(binary.BigEndian.Uint32(b[:]))
}

func addr(n uint64) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], uint32(n))
	return netip.AddrFrom4(b)
}
