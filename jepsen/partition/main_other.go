//go:build !linux

package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "partition: network namespaces are not available: this needs Linux")
	os.Exit(77)
}
