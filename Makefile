# Every target is a plain command that can be typed as well.

# A pinned version, so that a new check never fails an old commit.
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
FUZZTIME ?= 10s

# Nodes of the largest simulation, and of the scenarios.
SIM_NODES ?= 10000
SIM_SIZE ?= 256

.PHONY: build demo test race fuzz lint bench sim overlay-lab clean

# One static file without debug information, which an empty build cache makes a
# fifth faster; 'go build ./cmd/meshkv' keeps it. Stack traces are the same.
build: ## bin/meshkv
	CGO_ENABLED=0 go build -gcflags=all=-dwarf=false -ldflags='-s -w' -o bin/meshkv ./cmd/meshkv

demo: build ## a cluster of 5 nodes in one process, with a shell
	bin/meshkv demo --nodes 5

test: ## everything under the race detector
	.ci/test -timeout 10m

race: ## everything again and again, for rare interleavings
	go test -race -count 5 -timeout 30m ./...

fuzz: ## every fuzz target for FUZZTIME
	.ci/fuzz $(FUZZTIME)

lint: ## formatting, go vet, staticcheck
	test -z "$$(gofmt -l . | tee /dev/stderr)"
	go vet ./...
	go run $(STATICCHECK) ./...

bench: build ## the figures of docs/benchmarks.md
	go -C bench run ./embedded
	go -C bench run ./cluster -meshkv ../bin/meshkv

sim: ## the tables and figures of docs/sim, a few minutes on one core
	go run ./gossip/sim/campaign -nodes $(SIM_NODES) -size $(SIM_SIZE) -out docs/sim

overlay-lab: ## a VXLAN overlay of 3 hosts, checked and removed; needs root
	go build -o bin/overlay-lab ./examples/overlay/cmd/overlay-lab
	bin/overlay-lab up --hosts 3 --containers 2
	bin/overlay-lab ping-all
	bin/overlay-lab verify
	bin/overlay-lab down

clean:
	rm -rf bin
