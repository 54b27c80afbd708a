#!/usr/bin/env bash
# Shows that the tests catch what they are for: applies one mutant at a time and runs the tests that should notice.
#
#   tests/mutants/run.sh [NAME...]     all of tests/mutants/list, or some
#   MUTANT_SEEDS=A..B                  for the simulator (default 1..400)
#   MUTANT_SEEDS_S=SECONDS             and how long to look for a failing seed (default 60)
#
# Works in a copy of the tree, build/mutants/tree, which is built once; each mutant costs one object and the links. The tests
# must pass there without any mutant first. A mutant that no test catches, or that no longer applies, is a failure.
# Not to be caught by: a mutant that does not compile is a mistake in the mutant.
set -euo pipefail
export LC_ALL=C
cd "$(dirname "$0")/../.."

seeds=${MUTANT_SEEDS:-1..400}
seeds_s=${MUTANT_SEEDS_S:-60}
unit_s=120
work=build/mutants
tree=$work/tree
mutate=tests/mutants/mutate.py

# Sources with their times, and what is built of them, so that little is built anew.
copy_tree() {
    rm -rf "$tree"
    mkdir -p "$tree/build"
    tar -cf - --exclude=./build --exclude=./.git . | tar -xf - -C "$tree"
    if [[ -d build/release ]]; then
        cp -a build/release "$tree/build/release"
        rm -rf "$tree/build/release/test-logs"
    fi
}

# build_tests TEST...
build_tests() {
    local test targets=()
    for test in "$@"; do
        if [[ $test == simulator ]]; then
            targets+=(build/release/simulator)
        else
            targets+=("build/release/unit/$test")
        fi
    done
    make -s -C "$tree" CFLAGS=-Wno-error "${targets[@]}" >"$work/build.log" 2>&1
}

# The first failing seed ends it: a simulator that says "failed" has done its work.
run_simulator() {
    local log=$work/simulator.log pid rc=0
    : >"$log"
    (cd "$tree" && exec timeout "$seeds_s" build/release/simulator --seeds "$seeds" --jobs 1) >"$log" 2>&1 &
    pid=$!
    while kill -0 "$pid" 2>/dev/null; do
        if grep -q '^seed .* failed' "$log"; then
            kill "$pid" 2>/dev/null || true
            wait "$pid" 2>/dev/null || true
            return 1
        fi
        sleep 0.2
    done
    wait "$pid" || rc=$?
    ((rc == 0 || rc == 124)) && ! grep -q '^seed .* failed' "$log"
}

# run_test TEST: 0 if it passes.
run_test() {
    if [[ $1 == simulator ]]; then
        run_simulator
    else
        (cd "$tree" && CMOCKA_MESSAGE_OUTPUT=TAP timeout "$unit_s" "build/release/unit/$1") >"$work/$1.log" 2>&1 </dev/null
    fi
}

# What a test said, in a few words.
reason() {
    if [[ $1 == simulator ]]; then
        grep -m1 '^seed .* failed' "$work/simulator.log" | cut -c1-110
    else
        grep -m1 -E '^not ok|Assertion|ERROR' "$work/$1.log" | cut -c1-110 || echo "ended by a signal or the time limit"
    fi
}

tests_of() {
    python3 "$mutate" show "$1" tests
}

run_mutant() {
    local name=$1 file test
    file=$(python3 "$mutate" show "$name" file)
    cp -p "$tree/$file" "$work/original"
    if ! python3 "$mutate" apply "$name" "$tree"; then
        echo "GONE      $name"
        return 1
    fi
    # shellcheck disable=SC2046
    if ! build_tests $(tests_of "$name"); then
        echo "BROKEN    $name: it does not compile, see $work/build.log"
        restore "$file"
        return 1
    fi
    for test in $(tests_of "$name"); do
        if ! run_test "$test"; then
            echo "caught    $name by $test: $(reason "$test")"
            restore "$file"
            return 0
        fi
    done
    echo "SURVIVED  $name: $(python3 "$mutate" show "$name" breaks)"
    restore "$file"
    return 1
}

restore() {
    cp "$work/original" "$tree/$1"
}

# The unchanged tree must pass, else being caught means nothing.
check_baseline() {
    local tests test
    tests=$(for name in "$@"; do tests_of "$name"; done | tr ' ' '\n' | sort -u)
    # shellcheck disable=SC2086
    if ! build_tests $tests; then
        cat "$work/build.log"
        echo "the tree does not build"
        exit 1
    fi
    for test in $tests; do
        run_test "$test" || { echo "$test fails without any mutant: $(reason "$test")" && exit 1; }
    done
}

names=("$@")
if ((${#names[@]} == 0)); then
    mapfile -t names < <(ls tests/mutants/list)
fi
mkdir -p "$work"
copy_tree
check_baseline "${names[@]}"
failures=0
for name in "${names[@]}"; do
    run_mutant "$name" || failures=$((failures + 1))
done
echo "${#names[@]} mutants, $((${#names[@]} - failures)) caught, $failures not"
((failures == 0))
