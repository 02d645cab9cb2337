# Everything here needs Go and Node alone; what else the tests need is installed
# by `make test` itself, once. CI runs the same: see .ci/run.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
FUZZTIME    ?= 60s
SEED        ?= 0
MINUTES     ?= 10
BROKER      ?= embedded,redis,sentinel,cluster
BENCH       ?= .
JS          := client/js

# Tools in Go that are too large to be made anew each time.
TOOLS := $(CURDIR)/.tools
HELM  := helm.sh/helm/v3/cmd/helm@v3.22.0

# node_modules carries npm's own mark of what it was made from.
MODULES := $(JS)/node_modules/.package-lock.json
LINTER  := docs/node_modules/.package-lock.json

.PHONY: build run demo docs-img run-cluster test test-go test-js test-python test-php deps lint fmt bench fuzz chaos clean

build: ## the one binary
	go build -o longline .

run: ## the gateway on this machine, keeping its data in ./longline-data
	go run .

demo: ## a mailshot, a slow CRM, webhooks and Longline side by side, on a page
	go run . demo

docs-img: deps ## the pictures in docs/img, of the real pages
	cd $(JS) && node test/page/demo-picture.js && npm run shots --silent

run-cluster: build deps ## two gateways on one Redis, until Ctrl-C: see Procfile
	@.ci/cluster

test: deps lint lint-api test-go test-js test-python test-php ## everything that must pass

test-go:
	go build ./...
	go test -race -timeout 10m ./...

# Pages are what they say: their commands, snippets, links, messages, limits. A
# part of test-go, by itself.
test-docs: deps lint-api
	go test -count=1 ./docs/...
	go test -count=1 -run 'Documented|Described|Readme|Example' ./cli ./node ./e2e

test-js: $(MODULES)
	cd $(JS) && npm test --silent

# Debian's Python, which is the one that the package says it works with.
test-python: build
	cd client/python && LONGLINE_BINARY=$(CURDIR)/longline /usr/bin/python3 -m unittest -q

test-php: build
	LONGLINE_BINARY=$(CURDIR)/longline php client/php/tests/run.php

# Debian's packages, only if they are missing; npm's, only if the lock changed.
deps: $(MODULES) $(LINTER) $(TOOLS)/helm
	@.ci/packages

# Twice, because a package server may hiccup.
$(TOOLS)/helm:
	GOBIN=$(TOOLS) go install $(HELM) || GOBIN=$(TOOLS) go install $(HELM)

$(MODULES): $(JS)/package-lock.json
	cd $(JS) && npm ci --no-audit --no-fund --loglevel=error
	@touch $@

# What checks the descriptions of the API, by the rules of docs/redocly.yaml.
$(LINTER): docs/package-lock.json
	cd docs && { npm ci --no-audit --no-fund --loglevel=error || npm ci --no-audit --no-fund --loglevel=error; }
	@touch $@

lint-api: $(LINTER)
	@cd docs && said=$$(REDOCLY_SUPPRESS_UPDATE_NOTICE=true npx redocly lint --config redocly.yaml 2>&1) || { echo "$$said"; exit 1; }

lint:
	@files=$$(git ls-files --cached --others --exclude-standard '*.go' | xargs gofmt -l); \
	  if [ -n "$$files" ]; then echo "not formatted (make fmt):"; echo "$$files"; exit 1; fi
	go vet ./...
	go run $(STATICCHECK) ./...

fmt:
	gofmt -w $$(git ls-files --cached --others --exclude-standard '*.go')

bench:
	go test -run '^$$' -bench '$(BENCH)' -benchmem ./...

# Each fuzz target for FUZZTIME, one after another.
fuzz:
	@for package in $$(go list ./...); do \
	  for target in $$(go test -list '^Fuzz' $$package | grep '^Fuzz' || true); do \
	    echo "$$package $$target"; \
	    go test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) $$package; \
	  done; \
	done

# What kills processes and takes servers away, again and again. SEED repeats what
# went wrong, as far as it follows from a seed; 0 is a random one, which is printed.
chaos:
	go test -v -count=1 -timeout 600m ./e2e/chaos -broker $(BROKER) -seed $(SEED) -for $(MINUTES)m
	go test -count=3 -timeout 20m -run 'Chaos|Kill|Crash|Outage|Failover' ./...
	go test -timeout 60m ./internal/ledger -long
	go test -timeout 60m -run 'Model|Wander|Replay' ./gateway/durable -deep
	go test -v -count=1 -timeout 60m ./gateway/durable/simulation -for $(MINUTES)m
	go test -timeout 60m -run 'EveryPoint' ./broker/embedded -deep

clean:
	rm -rf longline $(JS)/node_modules
