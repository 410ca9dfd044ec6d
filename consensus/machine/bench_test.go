package machine

import (
	"fmt"
	"testing"
)

// BenchmarkApply applies commands to a keyspace of 100,000 keys: a put of a key that
// there is, a put of a new one, a guarded transaction of 4 operations, and a put that
// carries a request; with and without a view after every 64 commands, as a driver that
// serves reads makes them.
func BenchmarkApply(b *testing.B) {
	const keys = 100_000
	name := func(i int) string { return fmt.Sprintf("key/%08d", i) }
	value := make([]byte, 100)
	for _, c := range []struct {
		name    string
		command func(i int) Command
	}{
		{"put", func(i int) Command {
			return Command{Body: &Txn{Then: []Op{&Put{Key: name(i * 7919 % keys), Value: value}}}}
		}},
		{"new", func(i int) Command { return Command{Body: &Txn{Then: []Op{&Put{Key: name(keys + i), Value: value}}}} }},
		{"txn", func(i int) Command {
			k := name(i * 7919 % keys)
			return Command{Body: &Txn{
				Compares: []Compare{{Span: Span{Key: k}, Target: TargetVersion, Relation: Greater}},
				Then:     []Op{&Put{Key: k, Value: value}, &Put{Key: k + "/x", Value: value}, &Get{Span: Span{Key: k}}, &Delete{Span: Span{Key: k + "/y"}}},
			}}
		}},
		{"request", func(i int) Command {
			return Command{
				Request: Request{Client: name(i % 100), Number: uint64(i/100 + 1), Floor: uint64(i / 100)},
				Body:    &Txn{Then: []Op{&Put{Key: name(i * 7919 % keys), Value: value}}},
			}
		}},
	} {
		for _, views := range []bool{false, true} {
			b.Run(fmt.Sprintf("%s/views=%v", c.name, views), func(b *testing.B) {
				m := New()
				for i := range keys {
					m.Apply(uint64(i+1), encode(b, Command{Body: &Txn{Then: []Op{&Put{Key: name(i), Value: value}}}}))
				}
				cmds := make([][]byte, b.N)
				for i := range cmds {
					cmds[i] = encode(b, c.command(i))
				}
				b.ReportAllocs()
				b.ResetTimer()
				for i, cmd := range cmds {
					if res := m.Apply(uint64(keys+i+1), cmd); res.Err != nil {
						b.Fatal(res.Err)
					}
					if views && i%64 == 0 {
						m.View()
					}
				}
			})
		}
	}
}

// BenchmarkView is what a view costs after a command.
func BenchmarkView(b *testing.B) {
	m := full(b)
	b.ReportAllocs()
	for b.Loop() {
		m.view = nil
		m.View()
	}
}
