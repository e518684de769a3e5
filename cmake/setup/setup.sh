#!/usr/bin/env bash
# Installs what is missing on a Debian 12 machine and nothing else; a second run changes nothing and needs no network.
#
#   setup.sh build        packages, cargo, the Torch wheels and the model under build/deps
#   setup.sh test         the same, what tests run against, and the Python environment of the end-to-end tests, build/venv
#   setup.sh bench|eval|fuzz|lint|format  the packages those need
set -euo pipefail
cd "$(dirname "$0")/../.."

build_packages=(
  g++ cmake ninja-build mold ccache pkg-config python3-venv ca-certificates curl
  libgrpc++-dev libgrpc-dev protobuf-compiler protobuf-compiler-grpc libprotobuf-dev libabsl-dev libc-ares-dev libre2-dev
  libssl-dev zlib1g-dev libboost1.81-dev nlohmann-json3-dev libcli11-dev libspdlog-dev prometheus-cpp-dev
  libhwy-dev libxxhash-dev libhiredis-dev librocksdb-dev libjemalloc-dev libcairo2-dev libgtest-dev libgmock-dev libbenchmark-dev)
# The Redis server itself, under the name redis-check-rdb, without redis-server's service, user and unit: nothing is started or
# enabled on this machine, and tests run servers of their own.
test_packages=(redis-tools)
lint_packages=(clang-tidy clang-format)
eval_packages=(doc-debian perl-doc)  # texts
fuzz_packages=(clang-14 libclang-rt-14-dev)
rust_packages=(cargo-web rustc-web)
readonly min_cargo=1.85 min_python=3.11

say() { echo "set-up: $*"; }
die() { echo "set-up: $*" >&2; exit 1; }

# Prints those of its arguments that are not installed.
missing_packages() {
  local installed
  installed=$(dpkg-query -W -f='${db:Status-Status} ${Package}\n' "$@" 2>/dev/null | sed -n 's/^installed //p' || true)
  comm -23 <(printf '%s\n' "$@" | sort -u) <(sort -u <<<"$installed")
}

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# Reads apt's status lines (kind:item:percent:text) and shows them as a percentage.
show_apt_progress() {
  local kind item percent text shown=-10
  while IFS=: read -r kind item percent text; do
    percent=${percent%%.*}
    case "$kind" in dlstatus) kind=downloading;; pmstatus) kind=installing;; *) continue;; esac
    if [ -t 1 ]; then
      printf '\r\033[K  %-11s %3s %%  %.60s' "$kind" "$percent" "$text"
    elif [ "$kind$((percent / 10))" != "$shown" ]; then
      shown=$kind$((percent / 10))
      printf '  %-11s %3s %%\n' "$kind" "$percent"
    fi
  done
  if [ -t 1 ]; then printf '\r\033[K'; fi
}

install_packages() {
  local missing log
  command -v dpkg-query >/dev/null || die "this set-up knows Debian 12 only; install there or in a Debian 12 container"
  mapfile -t missing < <(missing_packages "$@")
  [ ${#missing[@]} -gt 0 ] || return 0
  say "installing ${#missing[@]} Debian packages: ${missing[*]}"
  if [ "$(id -u)" != 0 ] && ! command -v sudo >/dev/null; then
    die "not root and no sudo; run as root: apt-get install ${missing[*]}"
  fi
  mkdir -p build
  log=build/apt.log
  as_root apt-get update >"$log" 2>&1 ||
    die "apt-get update failed: $(last_error "$log"). Check the network and /etc/apt, then run make again"
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends -o APT::Status-Fd=3 "${missing[@]}" \
    3>&1 >>"$log" 2>&1 </dev/null | show_apt_progress ||
    die "apt-get install failed: $(last_error "$log"). All of it is in $log; mend it, then run make again"
}

last_error() { grep -E '^(E|W|Err)' "$1" | tail -n 1 || tail -n 1 "$1"; }

at_least() { [ "$(printf '%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]; }
cargo_version() { cargo --version 2>/dev/null | sed -n 's/^cargo \([0-9.]*\).*/\1/p'; }

install_cargo() {
  if at_least "$min_cargo" "$(cargo_version)"; then return 0; fi
  install_packages "${rust_packages[@]}"
  hash -r
  at_least "$min_cargo" "$(cargo_version)" ||
    die "cargo ${min_cargo} or newer is needed, but $(command -v cargo || echo cargo) is $(cargo_version || true);" \
      "update it, or put /usr/bin first in PATH"
}

# build/venv: its pip fetches the wheels; `make test` adds what tests/e2e imports.
make_venv() {
  local python=""
  if [ -x build/venv/bin/python ] && build/venv/bin/python -m pip --version >/dev/null 2>&1; then return 0; fi
  for python in python3 /usr/bin/python3 ""; do
    if [ -n "$python" ] && "$python" -c "import ensurepip, sys; sys.exit(sys.version_info < (${min_python/./, }))" 2>/dev/null
    then break; fi
  done
  [ -n "$python" ] || die "no python3 ≥ $min_python with its venv module; run: apt-get install python3-venv"
  say "making build/venv with $("$python" --version)"
  rm -rf build/venv
  "$python" -m venv build/venv || die "python3 -m venv failed; run: apt-get install --reinstall python3-venv"
}

install_test_requirements() {
  local requirements=tests/e2e/requirements.txt stamp=build/venv/requirements.sha256 digest
  digest=$(sha256sum <"$requirements")
  if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$digest" ]; then return 0; fi
  say "installing the Python packages of the end-to-end tests into build/venv"
  build/venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r "$requirements" ||
    die "pip could not install $requirements (its reason is above). Check the network and pip's settings, then run make again"
  echo "$digest" >"$stamp"
}

mkdir -p build
case "${1:-build}" in
  build|test)
    [ "$(uname -sm)" = "Linux x86_64" ] || die "Quire builds on Linux x86_64 only; this is $(uname -sm)"
    packages=("${build_packages[@]}")
    if [ "${1:-build}" = test ]; then packages+=("${test_packages[@]}"); fi
    install_packages "${packages[@]}"
    install_cargo
    make_venv
    build/venv/bin/python cmake/setup/fetch_wheels.py build/deps
    if [ "${1:-build}" = test ]; then install_test_requirements; fi ;;
  bench) install_packages "${test_packages[@]}" ;;
  eval) install_packages "${eval_packages[@]}" ;;
  fuzz) install_packages "${fuzz_packages[@]}" ;;
  lint) install_packages "${lint_packages[@]}" ;;
  format) install_packages clang-format ;;
  *) die "unknown step '$1'; one of build, test, bench, eval, fuzz, lint, format" ;;
esac
