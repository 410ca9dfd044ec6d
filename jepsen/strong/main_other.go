//go:build !linux

package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "strong: network namespaces and the states of processes are looked at as Linux has them")
	os.Exit(77)
}
