#!/usr/bin/env bash
# Runs fuzzers one after another, from their corpora in tests/fuzz/corpus, and prints executions and coverage of each.
#
#   tests/fuzz/run.sh SECONDS [NAME...]     BUILD=DIR   where they are (default build/fuzz)
#
# What they find new is kept in BUILD/corpus/NAME and used again; what fails them in BUILD/found. Without a single failure the
# exit code is 0. An input that fails: build/fuzz/fuzz_NAME FILE.
set -euo pipefail
cd "$(dirname "$0")/../.."

seconds=${1:?usage: tests/fuzz/run.sh SECONDS [NAME...]}
shift
build=${BUILD:-build/fuzz}
# A small quarantine: with the usual one every allocation is of fresh pages, and faults take a third of the time.
export ASAN_OPTIONS=detect_stack_use_after_return=0:abort_on_error=1:quarantine_size_mb=8:thread_local_quarantine_size_kb=64
export UBSAN_OPTIONS=print_stacktrace=1

# fuzz NAME: runs one; its log stays beside its corpus.
fuzz() {
    local name=$1 own=$build/corpus/$1 log=$build/corpus/$1.log rc=0
    mkdir -p "$own" "$build/found" "tests/fuzz/corpus/$name"
    "$build/fuzz_$name" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=1500 -len_control=20 -max_len=1024 \
        -print_final_stats=1 -artifact_prefix="$build/found/$name-" "$own" "tests/fuzz/corpus/$name" >"$log" 2>&1 || rc=$?
    printf '%-10s %10d executions, %s\n' "$name" \
        "$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")" \
        "$(grep -oE 'cov: [0-9]+ ft: [0-9]+' "$log" | tail -1)"
    ((rc == 0)) || { grep -E 'ERROR|does not hold|waits for ever|Assertion|runtime error|SUMMARY|Test unit' "$log" | sed 's/^/    /'; }
    return "$rc"
}

names=("$@")
if ((${#names[@]} == 0)); then
    for program in "$build"/fuzz_*; do
        names+=("${program##*/fuzz_}")
    done
fi
failures=0
for name in "${names[@]}"; do
    fuzz "$name" || failures=$((failures + 1))
done
((failures == 0))
