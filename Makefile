# make help lists the targets. Root is needed where real containers run: demo,
# test, torture, bench.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build
.DELETE_ON_ERROR:
# A target's prerequisites go from left to right, also under -j.
.NOTPARALLEL:

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
# The version is stamped by us: Go's own stamp fails where git refuses a
# checkout that another user owns.
GO_BUILD := go build -buildvcs=false -ldflags '-s -w -X main.version=$(VERSION)'
# berthd links NVML by name only. Its symbols are looked up when they are first
# called, in the process that has loaded the library: nowhere else, and not at
# the start. The header of NVML marks much as deprecated that old drivers need.
export CGO_CFLAGS := -O2 -g -Wno-deprecated-declarations
export CGO_LDFLAGS := -O2 -g -Wl,-z,lazy
GOLANGCI_VERSION := v2.15.0
GOLANGCI := build/tools/golangci-lint-$(GOLANGCI_VERSION)
NFPM_VERSION := v2.45.0
NFPM := build/tools/nfpm-$(NFPM_VERSION)

# A package's tests end after this much; all of them together are expected to
# take a good part less than 15 minutes on two cores.
TEST_TIMEOUT ?= 20m

# What the images of tests and demo are made of; prepare.sh says why it may be
# the one below build.
run-tests: export PATH := $(CURDIR)/build/tools:$(PATH)
run-tests demo bench: export BERTH_BUSYBOX = $(shell if [[ -x build/tools/busybox ]]; then echo $(CURDIR)/build/tools/busybox; else echo /bin/busybox; fi)

.PHONY: jupyter-image deb vm-test build test torture demo bench lint fmt clean help prepare-build prepare-run prepare-test prepare-vm prepare-image checks run-tests

build: prepare-build ## bin/berthd, bin/berth and bin/berth-helper
	$(GO_BUILD) -o bin/berthd ./cmd/berthd
	CGO_ENABLED=0 $(GO_BUILD) -o bin/berth ./cmd/berth
	CGO_ENABLED=0 $(GO_BUILD) -o bin/berth-helper ./cmd/berth-helper

test: prepare-test build checks run-tests ## everything: build, checks, all tests with the race detector and real containers

torture: export BERTH_TORTURE = 1
torture: TEST_TIMEOUT = 3h
torture: prepare-test build run-tests ## the same tests, larger

demo: prepare-run build ## a GPU instance in a real container, and a killed daemon that adopts it
	bash test/demo/demo.sh

bench: prepare-run build ## a table and build/bench.json
	mkdir -p build
	go run ./test/bench

deb: build $(NFPM) ## build/berth_VERSION_amd64.deb
	bash packaging/deb/build.sh $(VERSION) $(NFPM)

vm-test: prepare-vm deb ## the package on a bare host with systemd, booted in a virtual machine
	go run ./test/vm

jupyter-image: prepare-image ## build/jupyter.tar: an image with Jupyter, from Debian packages
	go run ./test/image/jupyter

lint: $(GOLANGCI) ## golangci-lint
	$(GOLANGCI) run ./...

fmt: ## gofmt
	go fmt ./...

clean: ## what the other targets made here
	rm -rf bin build

help: ## this list
	@sed -n 's/^\([a-z-]*\):.* ## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

prepare-build prepare-run prepare-test prepare-vm prepare-image: prepare-%:
	@bash packaging/prepare.sh $*

# Where the linter can't be fetched, its checks are left to the next machine
# that can; vet's are always made.
checks: prepare-build
	go vet ./...
	@unformatted=$$(gofmt -l .); \
	if [[ -n $$unformatted ]]; then echo "not formatted (make fmt):"; echo "$$unformatted"; exit 1; fi
	@if $(MAKE) --no-print-directory $(GOLANGCI); then $(MAKE) --no-print-directory lint; \
	else echo "checks: golangci-lint $(GOLANGCI_VERSION) can't be fetched here, going on without it"; fi

# One package after the other: several count what is left on this host, and
# bounds in time hold on a host that isn't busy elsewhere. go list -export
# compiles them all before that, on every core. The models of the state and of
# leases go their whole length without the race detector, which makes them five
# times as slow.
run-tests:
	mkdir -p build
	go list -race -test -deps -export ./... >/dev/null
	{ BERTH_REQUIRE_INTEGRATION=1 go test -race -p 1 -json -timeout $(TEST_TIMEOUT) ./...; \
	  go test -json -timeout $(TEST_TIMEOUT) -run '^TestModel$$' ./state ./lease; } | tee build/test.json | go run ./test/report

# Built under its own name, so that no half-made or older one is taken for it.
$(GOLANGCI):
	GOBIN=$(CURDIR)/build/tools/new go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)
	mv build/tools/new/golangci-lint $@

$(NFPM):
	GOBIN=$(CURDIR)/build/tools/new go install github.com/goreleaser/nfpm/v2/cmd/nfpm@$(NFPM_VERSION)
	mv build/tools/new/nfpm $@
