package machine

import (
	"reflect"
	"testing"
)

func TestGrantChoosesID(t *testing.T) {
	r := newRig(t)
	r.must(&Grant{ID: 2, TTL: MinTTL}) // at 1
	r.must(&Grant{ID: 3, TTL: MinTTL}) // at 2
	if id := r.must(&Grant{TTL: MinTTL}).Lease; id != 4 {
		t.Fatalf("got %d: 3 is in use", id)
	}
	var ids []LeaseID
	r.m.View().Leases(func(l *Lease) bool {
		ids = append(ids, l.ID)
		return true
	})
	if !reflect.DeepEqual(ids, []LeaseID{2, 3, 4}) {
		t.Fatalf("leases %v", ids)
	}
}
