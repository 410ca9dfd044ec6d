module github.com/meshkv/meshkv/bench/peer

go 1.26.0
