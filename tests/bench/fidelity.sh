#!/usr/bin/env bash
# The fidelity table: every codec beside its baselines on 8 texts of 2,048 tokens (1,536 coded, 512 scored) that a Debian 12
# machine has once Quire is set up. Chosen for their kinds, three of prose, three technical and two of code, before anything was
# measured on them. Goes on where an earlier run of the same binary ended.
#
#   fidelity.sh QUIRE_EVAL MODEL FOLDER [more flags of quire-eval]
#
# Keeps the measurements and fidelity.png in FOLDER.
set -euo pipefail

texts=(
  /usr/share/common-licenses/GPL-3                             # prose: a licence (base-files)
  /usr/share/common-licenses/GFDL-1.3                          # prose: a licence (base-files)
  /usr/share/perl/5.36.0/Locale/Maketext/TPJ13.pod             # prose: a magazine article (perl-modules-5.36)
  /usr/share/cmake-3.25/Help/manual/cmake-buildsystem.7.rst    # technical: a manual (cmake-data)
  /usr/lib/python3.11/pydoc_data/topics.py                     # technical: a language reference (libpython3.11-stdlib)
  /usr/share/perl/5.36.0/pod/perldiag.pod                      # technical: a list of messages (perl-modules-5.36)
  /usr/lib/python3.11/argparse.py                              # code: Python (libpython3.11-minimal)
  /usr/include/c++/12/bits/basic_string.h                      # code: C++ (libstdc++-12-dev)
)
codecs=(
  tq:k8v8 tq:k6v6 tq:k4v4 tq:k3v3 tq:k2v2
  tq:k4v4@3 tq:k4v4@2
  tq:k4v4,effort=2 tq:k3v3,effort=2
  q4_0 q8_0 fp8 turboquant:4 turboquant:3 turboquant:2
)

if [ $# -lt 3 ]; then
  echo "usage: ${0##*/} QUIRE_EVAL MODEL FOLDER [more flags of quire-eval]" >&2
  exit 2
fi
eval_binary=$1 model=$2 folder=$3
shift 3
for text in "${texts[@]}"; do
  [ -r "$text" ] || { echo "${0##*/}: $text is missing; is this Debian 12, set up with 'make build'?" >&2; exit 1; }
done
mkdir -p "$folder"
# Another binary may measure something else, so each has a file of its own.
build=$(sha256sum "$eval_binary" | cut -c 1-12)
exec "$eval_binary" --model "$model" --text "${texts[@]}" --codec "${codecs[@]}" \
  --resume "$folder/fidelity-$build.jsonl" --plot "$folder/fidelity.png" "$@"
