# Everything a contributor runs. `make` alone lists the targets.
#
# Needs Go (go.mod names the version) and the Go module proxy; the tests need a little more. Tools
# come from tools/go.mod, a module of its own so that their dependencies never meet the program's; each
# is built once into bin/ and again only when tools/go.mod changes.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

.PHONY: help
help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build bin/sluice, one static binary.
	CGO_ENABLED=0 go build -trimpath -o bin/sluice ./cmd/sluice

.PHONY: demo
demo: ARGS ?= --for 30s
demo: build ## Two model versions, the gateway and real traffic, all here, for 30 s: make demo ARGS="--for 10s".
	bin/sluice demo $(ARGS)

.PHONY: test
test: test-programs conformance-tools bin/benchstat ## Run all tests under the race detector.
	go test -race ./...
	go test -race ./gateway/relay -readers

# What tests need beside Go: a C compiler for the race detector, a real Redis, and promtool for the alert rules. Root on Debian, as in a
# fresh container, gets what is missing; everybody else is told.
.PHONY: test-programs
test-programs:
	@packages=(); \
	command -v "$$(go env CC)" >/dev/null || packages+=(gcc libc6-dev); \
	command -v git >/dev/null || packages+=(git); \
	command -v redis-server >/dev/null || packages+=(redis-server); \
	command -v promtool >/dev/null || packages+=(prometheus); \
	[[ $${#packages[@]} == 0 ]] && exit; \
	install="apt-get install --yes --no-install-recommends $${packages[*]}"; \
	if [[ $$(id -u) == 0 ]] && command -v apt-get >/dev/null; then \
	  echo "$$install"; apt-get update --quiet=2; DEBIAN_FRONTEND=noninteractive $$install >/dev/null; \
	else \
	  echo "the tests need programs that are missing; try: sudo $$install"; exit 1; \
	fi

.PHONY: check
check: bin/golangci-lint generated-is-current breaking ## Formatting, vet, lint, schemas, generated code, go.mod.
	@unformatted=$$(git ls-files --cached --others --exclude-standard '*.go' | xargs gofmt -l); \
	  [[ -z "$$unformatted" ]] || { echo "not gofmt-ed: $$unformatted"; exit 1; }
	go build ./...
	go vet ./...
	cd tools && go vet ./...
	bin/golangci-lint run ./...
	bin/buf lint
	go mod tidy -diff
	cd tools && go mod tidy -diff

.PHONY: interop
interop: ## Predictions through the gateway by a client in JavaScript; needs Node.js.
	cd examples/grpc-js && npm ci --no-audit --no-fund && npm run interop

.PHONY: vuln
vuln: bin/govulncheck ## Known vulnerabilities in what the program calls; asks vuln.go.dev.
	bin/govulncheck ./...

.PHONY: bench
bench: ## Compare the gateway with other proxies: make bench ARGS="...".
	go run ./bench/compare $(ARGS)

# BASE is any commit, by default the last release or what is committed.
.PHONY: bench-guard
bench-guard: bin/benchstat ## Fail if the working tree is slower than BASE: make bench-guard BASE=main.
	go run ./bench/guard -base $(BASE) $(ARGS)

# Schemas and generated code.
#
# routing.proto imports buf/validate/validate.proto, which buf would fetch from its schema registry.
# It is printed instead, into an ignored folder, from the descriptor that protovalidate's Go module
# carries: the module proxy suffices, and no foreign file is kept here.

VALIDATE := .cache/proto/buf/validate/validate.proto
GENERATORS := bin/buf bin/protoc-gen-go bin/protoc-gen-go-grpc bin/protoc-gen-connect-go

.PHONY: generate
generate: $(GENERATORS) $(VALIDATE) ## Generate Go from the schemas in proto/.
	bin/buf generate

# Generates elsewhere and compares, so that it is true of uncommitted work too and changes nothing.
.PHONY: generated-is-current
generated-is-current: $(GENERATORS) $(VALIDATE)
	@rm -rf .cache/generated && bin/buf generate --output .cache/generated
	@sums() { cd "$$1" && find . \( -name '*.pb.go' -o -name '*.connect.go' \) -exec sha256sum {} + | sort -k 2; }; \
	  diff <(sums proto) <(sums .cache/generated/proto) || { echo "generated code is not current; try: make generate"; exit 1; }

# The routing document is also what is stored: what a release wrote, later ones must read. Until there is
# a release, this guards what is not committed yet. BASE is any commit.
BASE ?= $(shell git describe --tags --abbrev=0 2>/dev/null || echo HEAD)

.PHONY: breaking
breaking: bin/buf $(VALIDATE)
	@rm -rf .cache/base && mkdir -p .cache/base/.cache && cp -r .cache/proto .cache/base/.cache/
	@git archive $(BASE) buf.yaml proto | tar -x -C .cache/base
	bin/buf breaking --against .cache/base

$(VALIDATE): tools/go.mod tools/validateproto/main.go
	cd tools && go run ./validateproto $(CURDIR)/.cache/proto
	@touch $@

# Tools. `touch`, because go build leaves a binary that is already right as old as it is.

.PHONY: conformance-tools
conformance-tools: bin/h2spec bin/interop-client bin/interop-server

bin/buf: PKG = github.com/bufbuild/buf/cmd/buf
bin/golangci-lint: PKG = github.com/golangci/golangci-lint/v2/cmd/golangci-lint
bin/protoc-gen-go-grpc: PKG = google.golang.org/grpc/cmd/protoc-gen-go-grpc
bin/govulncheck: PKG = golang.org/x/vuln/cmd/govulncheck
bin/benchstat: PKG = golang.org/x/perf/cmd/benchstat
bin/grpcurl: PKG = github.com/fullstorydev/grpcurl/cmd/grpcurl
bin/h2spec: PKG = github.com/summerwind/h2spec/cmd/h2spec
bin/interop-client: PKG = google.golang.org/grpc/interop/client
bin/interop-server: PKG = google.golang.org/grpc/interop/server

bin/buf bin/golangci-lint bin/protoc-gen-go-grpc bin/govulncheck bin/benchstat bin/grpcurl bin/h2spec bin/interop-client bin/interop-server: tools/go.mod
	CGO_ENABLED=0 go build -modfile=tools/go.mod -o $@ $(PKG)
	@touch $@

# From the program's own module: generator and runtime are then of the same version.
bin/protoc-gen-go: go.mod
	CGO_ENABLED=0 go build -o $@ google.golang.org/protobuf/cmd/protoc-gen-go
	@touch $@

bin/protoc-gen-connect-go: go.mod
	CGO_ENABLED=0 go build -o $@ connectrpc.com/connect/cmd/protoc-gen-connect-go
	@touch $@
