#!/usr/bin/env bash
# Each fuzzer over its corpus and then for a few seconds, as TAP.
#
#   FUZZ_SECONDS=N   each (default 2: with the corpora, under a minute on a busy machine)
set -euo pipefail
cd "$(dirname "$0")/../.."

build=build/fuzz
programs=()
for main in tests/fuzz/fuzz_*.c; do
    name=${main##*/}
    programs+=("${name%.c}")
done
if ! command -v clang >/dev/null; then
    echo "1..0 # SKIP clang is not installed (make deps)"
    exit 0
fi
echo "1..${#programs[@]}"
number=0
for program in "${programs[@]}"; do
    number=$((number + 1))
    if [[ ! -x $build/$program ]]; then
        echo "not ok $number - $program was not built (make fuzz-build)"
    elif out=$(BUILD=$build tests/fuzz/run.sh "${FUZZ_SECONDS:-2}" "${program#fuzz_}" 2>&1); then
        echo "ok $number - $out"
    else
        echo "not ok $number - $program"
        echo "# ${out//$'\n'/$'\n'# }"
    fi
done
