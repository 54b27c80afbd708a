#!/usr/bin/env bash
# tests/run itself: what it counts, and that no kind of failure can slip through.
# shellcheck source=tests/it/functions.sh
. "$(dirname "$0")/functions.sh"

# program NAME < SCRIPT
program() {
    { echo '#!/bin/sh' && cat; } >"$tmp/$1"
    chmod +x "$tmp/$1"
}

program good <<<'echo 1..2; echo "ok 1 - a"; echo "ok 2 - b"'
program skips <<<'echo "ok 1 - a # SKIP no network"; echo "ok 2 # SKIP"; echo 1..2'
program skips_all <<<'echo "1..0 # SKIP no kernel"'
program bad <<<'echo "ok 1 - a"; echo "not ok 2 - b"; echo "# b is 3, not 4"; echo 1..2; exit 1'
program crashes <<<'echo 1..2; echo "ok 1 - a"; kill -SEGV $$'
program exits <<<'echo "ok 1 - a"; exit 3'
program silent <<<'echo hello'
program stops_short <<<'echo 1..3; echo "ok 1 - a"'
program hangs <<<'echo "ok 1 - a"; sleep 60'

# counts EXIT_CODE LAST_LINE PROGRAM...: what tests/run makes of the programs.
counts() {
    local want_rc=$1 want=$2 rc=0
    shift 2
    tests/run --log-dir "$tmp/logs" --timeout 2 "${@/#/$tmp/}" >"$tmp/out" 2>&1 || rc=$?
    cat "$tmp/out"
    [[ $rc == "$want_rc" && $(tail -n 1 "$tmp/out") == "$want" ]]
}

prints() {
    counts "$1" "$2" "$3"
    grep -qF -- "$4" "$tmp/out"
}

run_test "passes are counted" counts 0 "2 passed, 0 failed, 0 skipped" good
run_test "skips are counted" counts 0 "0 passed, 0 failed, 2 skipped" skips
run_test "a skip is shown with its reason" prints 0 "0 passed, 0 failed, 2 skipped" skips "no network"
run_test "a file can skip itself" prints 0 "0 passed, 0 failed, 1 skipped" skips_all "no kernel"
run_test "a failure is counted once" counts 1 "1 passed, 1 failed, 0 skipped" bad
run_test "a failure is shown with its reason" prints 1 "1 passed, 1 failed, 0 skipped" bad "b is 3, not 4"
run_test "a crash is a failure" counts 1 "1 passed, 1 failed, 0 skipped" crashes
run_test "an exit code alone is a failure" counts 1 "1 passed, 1 failed, 0 skipped" exits
run_test "no results are a failure" counts 1 "0 passed, 1 failed, 0 skipped" silent
run_test "an unfinished plan is a failure" counts 1 "1 passed, 1 failed, 0 skipped" stops_short
run_test "a program that hangs is ended" counts 1 "1 passed, 1 failed, 0 skipped" hangs
run_test "programs are added up" counts 1 "3 passed, 1 failed, 2 skipped" good skips bad
end_tests
