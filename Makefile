# Everything starts here, from a fresh Debian 12 machine on; `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

LISTEN ?= 127.0.0.1:8000
DATA ?= build/data
MODEL ?= build/deps/model/SmolLM2-135M-Instruct.Q4_1.gguf
ARGS ?=
FUZZ_SECONDS ?= 60
TRACE ?= ../shared/traces/conversation.jsonl
JOBS ?= $(shell nproc)

# The compiler cache then serves every checkout of this repository, wherever it lies.
export CCACHE_BASEDIR := $(CURDIR)
export CCACHE_NOHASHDIR := 1
export JOBS

sources = $(shell git ls-files '*.cc' '*.h')

.PHONY: help
help: ## list these targets
	@echo "usage: make TARGET [LISTEN=host:port] [DATA=folder] [MODEL=file.gguf] [ARGS='more flags'] [JOBS=n]"
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1|/' | awk -F'|' '{printf "  %-10s %s\n", $$1, $$2}'

.PHONY: serve
serve: setup build/build.ninja ## build what is missing and serve the model's OpenAI API on LISTEN
	@ninja -C build -j $(JOBS) quire
	@exec build/bin/quire serve --model '$(MODEL)' --listen '$(LISTEN)' --data '$(DATA)' $(ARGS)

.PHONY: test
test: ## set up, build and run every test (CI runs exactly this)
	@cmake/setup/run_tests.sh

.PHONY: build
build: setup build/build.ninja ## build all binaries (build/bin) and tests, release
	@ninja -C build -j $(JOBS)

.PHONY: bench
bench: setup build/build.ninja ## measure the codec and the store, each beside its baseline of the same run
	@cmake/setup/setup.sh bench
	@ninja -C build -j $(JOBS) quire-bench
	@for part in codec store redis; do build/bin/quire-bench $$part $(ARGS); done
	@build/bin/quire-bench trace --trace '$(TRACE)' --chart build/trace.png $(ARGS)

.PHONY: soak
soak: setup build/build.ninja ## an hour's mixed load with faults, as fast as it goes; quire-store killed 100 times under load
	@cmake/setup/setup.sh bench
	@ninja -C build -j $(JOBS) quire-bench quire-store tests_services_store_store_kill_test
	@QUIRE_KILL_ROUNDS=100 build/tests/tests_services_store_store_kill_test
	@build/bin/quire-bench soak $(ARGS)

.PHONY: eval
eval: setup build/build.ninja ## print the codecs' divergence, agreement and errors on 8 texts, and plot it into build/eval
	@ninja -C build -j $(JOBS) quire-eval
	@cmake/setup/setup.sh eval
	@tests/bench/fidelity.sh build/bin/quire-eval '$(MODEL)' build/eval $(ARGS)

.PHONY: sanitize
sanitize: ## run core, parser, store and gateway tests under ASan and UBSan (build-asan)
	@cmake/setup/run_tests.sh sanitizers

.PHONY: fuzz
fuzz: setup ## build the fuzzers with clang (build-fuzz) and run each for FUZZ_SECONDS=60
	@cmake/setup/setup.sh fuzz
	@[ -f build-fuzz/build.ninja ] || cmake --preset fuzz
	@ninja -C build-fuzz -j $(JOBS) fuzzers
	@tests/fuzz/run.sh $(FUZZ_SECONDS)

.PHONY: lint
lint: setup build/build.ninja ## check the format of all sources and run clang-tidy on them
	@cmake/setup/setup.sh lint
	@clang-format --dry-run --Werror $(sources)
	@ninja -C build -j $(JOBS) proto
	@run-clang-tidy -quiet -p build -j $(JOBS) $(patsubst %,'^$(CURDIR)/%$$',$(filter %.cc,$(sources)))

.PHONY: format
format: ## format all sources in place
	@cmake/setup/setup.sh format
	@clang-format -i $(sources)

.PHONY: setup
setup:
	@cmake/setup/setup.sh build

build/build.ninja: CMakePresets.json | setup
	@cmake --preset release

.PHONY: gemma
gemma: setup ## fetch Gemma 3 270M (253 MB, under Google's Gemma terms) into build/deps/gemma; its tests then run
	@build/venv/bin/python cmake/setup/fetch_wheels.py build/deps gemma

.PHONY: gpu
gpu: setup ## build everything with the CUDA kernels, for sm_90, into build-gpu; needs no GPU
	@build/venv/bin/python cmake/setup/fetch_cuda.py build/deps
	@cmake --preset gpu
	@ninja -C build-gpu -j $(JOBS)

.PHONY: gpu-all
gpu-all: setup ## compile the CUDA kernels for sm_80, sm_90, sm_100 and sm_120 into build-gpu-all
	@build/venv/bin/python cmake/setup/fetch_cuda.py build/deps
	@cmake --preset gpu-all
	@ninja -C build-gpu-all -j $(JOBS) cuda
