#!/usr/bin/env bash
# Everything `make test` does, each stage timed: set-up, the release build, core and the parsers under ASan/UBSan, the CUDA
# kernels and their tests compiled for sm_90 (no GPU is needed, none is used), the fuzzers for a minute each, then all tests.
# ctest's summary is the last thing printed.
#
#   run_tests.sh             all of that
#   run_tests.sh sanitizers  only the sanitizer half, for every test that needs no Torch (`make sanitize`)
set -euo pipefail
cd "$(dirname "$0")/../.."
jobs=${JOBS:-$(nproc)}
readonly core_and_parsers='^tests_(core|gateway_openai|gateway_http)_'
readonly all_without_torch='^tests_(core|services|gateway)_'

times=()
stage() {  # stage NAME COMMAND…: runs it and notes how long it took
  local name=$1 start=$SECONDS
  shift
  echo "== $name"
  "$@" || { echo "== $name failed after $((SECONDS - start)) s" >&2; return 1; }
  times+=("$(printf '%-18s %5d s' "$name" $((SECONDS - start)))")
}

# Configures PRESET in FOLDER, or brings that up to date.
configure() {
  [ -f "$2/build.ninja" ] && [ ! CMakePresets.json -nt "$2/build.ninja" ] || cmake --preset "$1"
  ninja -C "$2" build.ninja
}

# A test's name in ctest is its target's name in ninja; a test that is a script has no target.
build_tests_matching() {
  local targets
  mapfile -t targets < <(comm -12 <(ctest --test-dir build-asan -N -R "$1" | sed -n 's/^ *Test *#[0-9]*: //p' | sort) \
    <(ninja -C build-asan -t targets all | sed 's/:.*//' | sort))
  [ ${#targets[@]} -gt 0 ] || { echo "no test matches $1" >&2; return 1; }
  ninja -C build-asan -j "$jobs" "${targets[@]}"
}

sanitizer_tests() {
  # Debian's gRPC and Abseil are not instrumented, so container annotations would be half there.
  ASAN_OPTIONS=detect_container_overflow=0:detect_stack_use_after_return=1 UBSAN_OPTIONS=print_stacktrace=1 \
    ctest --test-dir build-asan -j "$jobs" --output-on-failure -R "$1"
}

sanitized=passed
run_sanitizers() {
  stage "asan configure" configure asan build-asan
  stage "asan build" build_tests_matching "$1"
  stage "asan tests" sanitizer_tests "$1" || sanitized=failed
}

stage "set-up" cmake/setup/setup.sh test
if [ "${1:-}" = sanitizers ]; then
  run_sanitizers "$all_without_torch"
  [ $sanitized = passed ]
  exit
fi
stage "configure" configure release build
stage "build" ninja -C build -j "$jobs"
run_sanitizers "$core_and_parsers"

stage "cuda compiler" build/venv/bin/python cmake/setup/fetch_cuda.py build/deps
stage "cuda configure" configure gpu build-gpu
stage "cuda build" ninja -C build-gpu -j "$jobs" cuda tests/cuda/all

fuzzed=passed
stage "fuzz set-up" cmake/setup/setup.sh fuzz
stage "fuzz configure" configure fuzz build-fuzz
stage "fuzz build" ninja -C build-fuzz -j "$jobs" fuzzers
stage "fuzzers" tests/fuzz/run.sh 60 || fuzzed=failed

echo "== time so far"
printf '   %s\n' "${times[@]}"
echo "== tests"
ctest --test-dir build -j "$jobs" --output-on-failure
[ $fuzzed = passed ] || { echo "a fuzzer found something (above, under 'fuzzers')" >&2; exit 1; }
[ $sanitized = passed ] || { echo "the tests under ASan/UBSan failed (above, under 'asan tests')" >&2; exit 1; }
