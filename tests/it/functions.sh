# Common ground of the integration tests; each one sources it first. Not a program.
#
# A test file sets the stage (disks, daemon, pool, perhaps a guest), then calls run_test once for
# each behaviour, then end_tests. Output is TAP. Everything a test makes lives in $tmp, which goes
# away with the test; whatever it starts is ended by its own pid.
#
#   BUILD=DIR        the build folder under test (default build)
#   TMPDIR=DIR       where $tmp is made (default /tmp)
#   IT_DISK_DIR=DIR  where the disk files are made instead of $tmp, e.g. /dev/shm
#   IT_KEEP=1        keep $tmp and say where it is
#   POOLD_FLAGS=...  more options for every poold, e.g. "--cores 0"
#
# shellcheck shell=bash
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
BUILD=${BUILD:-build}
POOLD=${POOLD:-$BUILD/poold}
POOLCTL=${POOLCTL:-$BUILD/poolctl}
export PATH=$PATH:/usr/sbin:/sbin

tmp=$(mktemp -d "${TMPDIR:-/tmp}/pool-it.XXXXXX")
disk_dir=$tmp
[[ -z ${IT_DISK_DIR:-} ]] || disk_dir=$(mktemp -d "$IT_DISK_DIR/pool-it.XXXXXX")
export POOLD_SOCKET=$tmp/poold.sock

# ---- TAP ----

tests_run=0
tests_failed=0
finished=no
exec 3>&1 # where TAP goes, whatever a test does with its output

# comment < TEXT: as TAP comment lines.
comment() {
    sed 's/^/# /' >&3
}

# show_logs: the ends of all logs that have grown since they were last shown, after a failure.
show_logs() {
    local log
    for log in "$tmp"/*.log; do
        [[ -s $log && ! $log.shown -nt $log ]] || continue
        echo "--- end of ${log##*/}:"
        tail -n "${IT_LOG_LINES:-15}" "$log"
        touch "$log.shown"
    done | comment
}

# run_test NAME COMMAND...: one behaviour. The command runs in a subshell under "set -e".
run_test() {
    local name=$1 rc
    shift
    tests_run=$((tests_run + 1))
    set +e
    (
        set -e
        "$@"
    ) >"$tmp/output" 2>&1
    rc=$?
    set -e
    if ((rc == 0)); then
        echo "ok $tests_run - $name" >&3
        return
    fi
    tests_failed=$((tests_failed + 1))
    echo "not ok $tests_run - $name" >&3
    comment <"$tmp/output"
    show_logs
}

# skip_test NAME REASON
skip_test() {
    tests_run=$((tests_run + 1))
    echo "ok $tests_run - $1 # SKIP $2" >&3
}

# skip_all REASON: nothing of this file can be tested here.
skip_all() {
    echo "1..0 # SKIP $1" >&3
    finished=yes
    exit 0
}

# requires PROGRAM...: skips the file if one is missing.
requires() {
    local name
    for name in "$@"; do
        command -v "$name" >/dev/null || skip_all "'$name' is not installed"
    done
}

# end_tests: the last call of each file.
end_tests() {
    finished=yes
    echo "1..$tests_run" >&3
    ((tests_failed == 0))
}

# ---- leaving nothing behind ----

cleanups=()

# cleanup_fn COMMAND...: runs when the test ends, last registered first.
cleanup_fn() {
    cleanups+=("$(printf '%q ' "$@")")
}

sanitizer_reports() {
    grep -hE 'Sanitizer|runtime error:|Assertion' "$tmp"/poold*.log 2>/dev/null
}

on_exit() {
    local rc=$? i
    trap - EXIT
    trap '' INT TERM
    set +e
    if [[ $finished == no ]]; then
        echo "# ended early with exit code $rc" >&3
        show_logs
    fi
    for ((i = ${#cleanups[@]} - 1; i >= 0; i--)); do
        eval "${cleanups[i]}"
    done
    if [[ -n $(sanitizer_reports) ]]; then
        echo "# poold reported:" >&3
        sanitizer_reports | comment
        rc=1
    fi
    if [[ -n ${IT_KEEP:-} ]]; then
        echo "# kept $tmp" >&3
    else
        rm -rf "$tmp" "$disk_dir"
    fi
    exit "$rc"
}
trap on_exit EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# ---- processes and waiting ----

# alive PID: it runs (a zombie does not).
alive() {
    local stat
    stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
    stat=${stat##*) }
    [[ ${stat%% *} != [ZX] ]]
}

gone() {
    ! alive "$1"
}

# wait_until SECONDS COMMAND...: until the command succeeds; fails at the deadline.
wait_until() {
    local deadline=$((${EPOCHREALTIME/./} + $1 * 1000000))
    shift
    until "$@"; do
        if ((${EPOCHREALTIME/./} > deadline)); then
            echo "timed out: $*"
            return 1
        fi
        sleep 0.02
    done
}

# end_process PID: asks, then insists.
end_process() {
    alive "$1" || return 0
    kill "$1" 2>/dev/null
    wait_until 10 gone "$1" >/dev/null && return 0
    kill -KILL "$1" 2>/dev/null
    wait_until 10 gone "$1"
}

# launch NAME COMMAND...: in the background; its pid is in $tmp/NAME.pid, what it prints goes to
# $tmp/NAME.log, its exit code later to $tmp/NAME.rc.
launch() {
    local name=$1
    shift
    rm -f "$tmp/$name.pid" "$tmp/$name.rc"
    (
        exec 3>&-
        "$@" &
        echo "$!" >"$tmp/$name.pid"
        rc=0
        wait "$!" || rc=$?
        echo "$rc" >"$tmp/$name.rc"
    ) </dev/null >>"$tmp/$name.log" 2>&1 &
    wait_until 5 test -s "$tmp/$name.pid"
}

pid_of() {
    cat "$tmp/$1.pid"
}

# exit_code_of NAME: waits for a launched program that is about to end.
exit_code_of() {
    wait_until 5 test -s "$tmp/$1.rc" >&2 && cat "$tmp/$1.rc"
}

# running NAME: a launched program has not ended. Its number alone does not tell: numbers are used again.
running() {
    [[ -s $tmp/$1.pid && ! -s $tmp/$1.rc ]] && alive "$(pid_of "$1")"
}

ended() {
    ! running "$1"
}

# end_launched NAME
end_launched() {
    ended "$1" || end_process "$(pid_of "$1")"
}

# ---- poold ----

ctl() {
    "$POOLCTL" "$@"
}

# json FILTER WORD...: what jq makes of "poolctl --json WORD...".
json() {
    local filter=$1
    shift
    "$POOLCTL" --json "$@" | jq -er "$filter"
}

poold_answers() {
    "$POOLCTL" status >/dev/null 2>&1
}

poold_ready_or_dead() {
    poold_answers || ! alive "$(pid_of poold)"
}

# poold_start: with the same state folder each time; returns when it answers.
poold_start() {
    # shellcheck disable=SC2086 # POOLD_FLAGS holds words
    launch poold "$POOLD" --socket "$POOLD_SOCKET" --state "$tmp/state" ${POOLD_FLAGS:-}
    wait_until 20 poold_ready_or_dead
    poold_answers
}

# poold_stop: by SIGTERM; fails unless poold leaves with exit code 0.
poold_stop() {
    local pid rc
    pid=$(pid_of poold)
    kill -TERM "$pid"
    wait_until 15 gone "$pid"
    rc=$(exit_code_of poold)
    [[ $rc == 0 ]] || {
        echo "poold ended with exit code $rc"
        return 1
    }
}

poold_kill9() {
    local pid
    pid=$(pid_of poold)
    kill -KILL "$pid"
    wait_until 10 gone "$pid"
}

# make_disks COUNT SIZE: sparse files disk1 ... in $disk_dir; sets disks.
make_disks() {
    local i
    disks=()
    for ((i = 1; i <= $1; i++)); do
        truncate -s "$2" "$disk_dir/disk$i"
        disks+=("$disk_dir/disk$i")
    done
}

# make_pool SIZE: starts poold and makes pool "tank" of three disks of this size.
make_pool() {
    requires_poold
    cleanup_fn end_launched poold
    poold_start
    make_disks 3 "$1"
    ctl pool create tank "${disks[@]}"
}

# make_volume NAME SIZE [EXPORT OPTION...]: in tank, exported at $tmp/NAME.vhost.
make_volume() {
    local name=$1 size=$2
    shift 2
    ctl volume create "tank/$name" --size "$size"
    ctl export add "tank/$name" --vhost-user "$tmp/$name.vhost" "$@"
}

requires_poold() {
    requires jq
    [[ -x $POOLD && -x $POOLCTL ]] || skip_all "'$POOLD' and '$POOLCTL' are not built"
}
