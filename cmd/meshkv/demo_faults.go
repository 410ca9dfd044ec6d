package main

import "time"

type faults struct{}

func newFaults() *faults                         { return &faults{} }
func (f *faults) network(name string) any        { return nil }
func (f *faults) isolate(name string)            {}
func (f *faults) restore(name string)            {}
func (f *faults) partition(left, right []string) {}
func (f *faults) heal()                          {}
func (f *faults) latency(d time.Duration)        {}
