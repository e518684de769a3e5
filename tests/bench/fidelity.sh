#!/usr/bin/env bash
# The fidelity table: every codec beside its baselines on 8 texts of 2,048 tokens (1,536 coded, 512 scored) that a Debian 12
# machine has once it is set up with `make eval`. Of the kinds on which the bars of the codec were set: two of political prose,
# two technical, a glossary, a history, two of code. Goes on where an earlier run of the same binary ended.
#
#   fidelity.sh QUIRE_EVAL MODEL FOLDER [more flags of quire-eval]
#
# Keeps the texts, the measurements and fidelity.png in FOLDER.
set -euo pipefail

doc=/usr/share/doc/debian
pod=/usr/share/perl/5.36.0/pod
# name in the folder: the files it is made of
texts=(
  "constitution: $doc/constitution.txt.gz"                          # prose (doc-debian)
  "manifesto: $doc/debian-manifesto.gz $doc/social-contract.txt.gz" # prose (doc-debian)
  "buildsystem: /usr/share/cmake-3.25/Help/manual/cmake-buildsystem.7.rst"  # technical (cmake-data)
  "diagnostics: $pod/perldiag.pod"                                  # technical (perl-modules-5.36)
  "glossary: $pod/perlglossary.pod"                                 # a glossary (perl-doc)
  "history: $pod/perlhist.pod"                                      # a project's history (perl-doc)
  "argparse: /usr/lib/python3.11/argparse.py"                       # code (libpython3.11-minimal)
  "subprocess: /usr/lib/python3.11/subprocess.py"                   # code (libpython3.11-minimal)
)
codecs=(
  tq:k8v8 tq:k6v6 tq:k4v4 tq:k3v3 tq:k2v2
  tq:k4v4@3 tq:k4v4@2
  tq:k4v4,effort=0 tq:k3v3,effort=0 tq:k2v2,effort=0 tq:k4v4,effort=0@3 tq:k4v4,effort=0@2
  q4_0 q8_0 fp8 turboquant:4 turboquant:3 turboquant:2
)

if [ $# -lt 3 ]; then
  echo "usage: ${0##*/} QUIRE_EVAL MODEL FOLDER [more flags of quire-eval]" >&2
  exit 2
fi
eval_binary=$1 model=$2 folder=$3
shift 3
mkdir -p "$folder/texts"
files=()
for text in "${texts[@]}"; do
  name=${text%%:*}
  read -ra sources <<<"${text#*:}"
  for source in "${sources[@]}"; do
    [ -r "$source" ] || { echo "${0##*/}: $source is missing; is this Debian 12, set up with 'make eval'?" >&2; exit 1; }
  done
  zcat -f "${sources[@]}" >"$folder/texts/$name"
  files+=("$folder/texts/$name")
done
# Another binary may measure something else, so each has a file of its own.
build=$(sha256sum "$eval_binary" | cut -c 1-12)
exec "$eval_binary" --model "$model" --text "${files[@]}" --codec "${codecs[@]}" \
  --resume "$folder/fidelity-$build.jsonl" --plot "$folder/fidelity.png" "$@"
