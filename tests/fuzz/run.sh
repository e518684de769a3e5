#!/usr/bin/env bash
# Runs every fuzzer of build-fuzz for some seconds, several at a time, from the kept corpus.
#
#   run.sh [SECONDS [FUZZER…]]     60 seconds, all fuzzers
#
# What they find on the way grows in build-fuzz/corpus and is the start of the next run; an input that crashes, hangs or leaks ends the run
# with its name, and the file stays in build-fuzz/finds: once mended it goes into the kept corpus. Seeds are made by tests_fuzz_make_corpus;
# what else is worth keeping comes there by tests_fuzz_NAME -merge=1 tests/fuzz/corpus/NAME build-fuzz/corpus/NAME.
set -euo pipefail
cd "$(dirname "$0")/../.."
seconds=${1:-60}
shift || true
jobs=${JOBS:-$(nproc)}
if [ $# -gt 0 ]; then names=("$@"); else mapfile -t names < <(ls tests/fuzz/corpus); fi

# Debian's Protobuf, gRPC and Abseil are not instrumented, so container annotations would be half there.
export ASAN_OPTIONS=detect_container_overflow=0:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1
export seconds

fuzz() {  # fuzz NAME
  local name=$1 log=build-fuzz/$1.log start=$SECONDS
  local flags=()
  case $name in
    # gRPC's threads free what an input had when it has ended: each time leaks would be looked for, which takes longer than the input. So
    # they are looked for at the end. And so many things happen in each input that entropy takes longer to weigh them.
    admin|codec|kv) flags=(-entropic=0 -detect_leaks=0) ;;
  esac
  mkdir -p "build-fuzz/corpus/$name" build-fuzz/finds
  if ! "build-fuzz/bin/tests_fuzz_$name" "${flags[@]}" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 -max_len=32768 \
      -print_final_stats=1 "-artifact_prefix=build-fuzz/finds/$name-" "build-fuzz/corpus/$name" "tests/fuzz/corpus/$name" \
      >"$log" 2>&1 </dev/null; then
    tail -n 40 "$log"
    echo "fuzzer $name found something: see build-fuzz/finds and $log"
    return 1
  fi
  printf '%-10s %s\n' "$name" "$(sed -n 's/^stat::number_of_executed_units: */inputs /p' "$log"), $(grep -E 'cov: ' "$log" |
    grep DONE | head -n 1 | sed -E 's/.*(cov: [0-9]+).*/\1/'), $((SECONDS - start)) s"
}
export -f fuzz

printf '%s\n' "${names[@]}" | xargs -P "$jobs" -I{} bash -euo pipefail -c 'fuzz {}'
