package replica

import (
	"context"
	"time"

	"github.com/meshkv/meshkv/consensus/machine"
)

type duties struct{ r *Replica }

func newDuties(r *Replica) *duties                                           { return &duties{r} }
func (d *duties) note([]machine.Result)                                      {}
func (d *duties) run()                                                       {}
func (d *duties) keepAlive(context.Context, machine.LeaseID) (uint64, error) { return 0, nil }
func (r *Replica) KeepAlive(ctx context.Context, id machine.LeaseID) (time.Duration, error) {
	return 0, nil
}
