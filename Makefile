# quickims: build, test, measure. `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
# With a C compiler the reference zstd is linked in, statically, which compresses
# faster; without one it is zstd in Go.
LDFLAGS := -s -w -X main.version=$(VERSION)
ifneq ($(shell command -v $${CC:-gcc} 2>/dev/null),)
GO_BUILD := CGO_ENABLED=1 go build -trimpath -tags netgo,osusergo -ldflags '$(LDFLAGS) -linkmode external -extldflags "-static"'
else
GO_BUILD := CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)'
endif
FUZZTIME ?= 60s
export FIRMWARE ?= uefi
FUZZEXECUTIONS ?= 10000000

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## build bin/quickims (static)
	$(GO_BUILD) -o bin/quickims ./cmd/quickims

.PHONY: demo
demo: build ## from nothing to two active images, one read back byte for byte
	scripts/install-packages demo
	scripts/demo

.PHONY: demo-boot
demo-boot: build ## start a machine from an image over NBD, its console shown (FIRMWARE=uefi|bios)
	scripts/install-packages boot
	scripts/demo-boot

.PHONY: test
test: ## install what the tests need (Debian packages) and run them all
	scripts/install-packages test
	scripts/test

.PHONY: test-clients
test-clients: ## run every client there is against the service; compare docs/compatibility.md
	scripts/install-packages clients
	scripts/compatibility -check

.PHONY: compatibility
compatibility: ## make docs/compatibility.md of what the clients' tests record
	scripts/install-packages clients
	scripts/compatibility

.PHONY: test-long
test-long: ## the long property tests, a thousand kills, and real systems that are checked and started (as root)
	scripts/install-packages test
	scripts/install-packages roots
	QUICKIMS_TEST_LONG=1 scripts/test -timeout 2h

.PHONY: test-roots
test-roots: ## what check says of some 45 Debian systems, seven of them started (as root)
	scripts/install-packages test
	scripts/install-packages roots
	QUICKIMS_TEST_LONG=1 go test -timeout 2h -v -run TestRoots ./test/boot

.PHONY: lint
lint: ## gofmt, go vet, staticcheck, code that only tests reach, known vulnerabilities
	scripts/lint

.PHONY: fuzz
fuzz: ## run every fuzz target for FUZZTIME (60s)
	scripts/fuzz $(FUZZTIME)

.PHONY: fuzz-long
fuzz-long: ## call each parser of disk files with FUZZEXECUTIONS (10000000) hostile inputs
	scripts/fuzz-long $(FUZZEXECUTIONS)

.PHONY: bench
bench: build ## time and memory of quick imports, 1 GiB to 1 TiB: a table and bench.json
	go run ./test/bench -quickims bin/quickims -json bin/bench.json

.PHONY: bench-tools
bench-tools: build ## the image tools beside qemu-img, zstd and cat: a table and bench-tools.json (BENCH_TOOLS: more flags)
	scripts/install-packages test
	go run ./test/toolbench -quickims bin/quickims $(BENCH_TOOLS) -json bin/bench-tools.json

.PHONY: bench-serve
bench-serve: build ## disks over NBD beside nbdkit on the same store: a table and bench-serve.json
	scripts/install-packages bench
	go run ./test/servebench -quickims bin/quickims -json bin/bench-serve.json

.PHONY: clean
clean: ## remove what was built
	rm -rf bin
