module github.com/meshkv/meshkv/bench

go 1.26.0

require github.com/meshkv/meshkv v0.0.0

replace github.com/meshkv/meshkv => ../
