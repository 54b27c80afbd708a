#!/usr/bin/env bash
# A request on the hot path allocates nothing, takes no lock and makes no system call: counted over a million reads and a
# million writes through vhost-user-blk. Allocations and locks are counted by a preloaded library, system calls by strace.
#
# What is left is not of single requests, so the limits are shares of their number: starting and ending a session;
# segments, checkpoints and memory of the overlay, for thousands of writes each; and going to sleep and being woken
# (io_uring_enter, read) whenever this machine lets the client wait until poold has served all it had.
# shellcheck source=tests/it/functions.sh
. "$(dirname "$0")/functions.sh"
requires_poold
requires "${CC:-gcc}" strace

requests=${HOT_PATH_REQUESTS:-1000000}
volume_mib=256

! nm "$POOLD" 2>/dev/null | grep -qE '__(asan|tsan)_init' || skip_all "poold has a sanitizer's allocator"
"${CC:-gcc}" -O2 -Wall -Wextra -Werror -D_GNU_SOURCE -shared -fPIC -o "$tmp/count_calls.so" tests/bench/count_calls.c ||
    skip_all "no compiler for the counting library"

# start_counted: poold with its calls counted in $tmp/calls.
start_counted() {
    launch poold env "LD_PRELOAD=$tmp/count_calls.so" "COUNT_CALLS_FILE=$tmp/calls" \
        "$POOLD" --socket "$POOLD_SOCKET" --state "$tmp/state"
    wait_until 20 poold_ready_or_dead
    poold_answers
}

load() {
    "$BUILD/vhost-bench" --socket "$tmp/v.vhost" "$@"
}

calls() {
    od -An -td8 "$tmp/calls"
}

# count_requests MODE: what $requests of them cost: sets allocations, locks, system_calls and, among these, sleeps.
count_requests() {
    local report=$tmp/strace.$1 tracer before after
    strace -f -c -o "$report" -p "$(pid_of poold)" 2>"$tmp/strace.err" &
    tracer=$!
    wait_until 10 grep -qs attached "$tmp/strace.err"
    read -r -a before < <(calls)
    load --rw "$1" --depth 128 --count "$requests"
    read -r -a after < <(calls)
    kill -INT "$tracer"
    wait "$tracer" || true
    allocations=$((after[0] - before[0]))
    locks=$((after[1] - before[1]))
    system_calls=$(awk '$NF == "total" { n = $4 } END { print n + 0 }' "$report")
    sleeps=$(awk '$NF == "io_uring_enter" || $NF == "read" { n += $4 } END { print n + 0 }' "$report")
    cat "$report"
    comment <<<"$requests requests, $1: $allocations allocations, $locks locks, $system_calls system calls, $sleeps of them sleeps"
}

# at_most COUNT REQUESTS: no more than one for so many requests.
at_most() {
    (($1 * $2 <= requests))
}

reads() {
    count_requests randread
    at_most "$allocations" 2000
    at_most "$locks" 2000
    at_most $((system_calls - sleeps)) 1000
    at_most "$sleeps" 10
}

writes() {
    count_requests randwrite
    at_most "$allocations" 250
    at_most "$locks" 2000
    at_most $((system_calls - sleeps)) 1000
    at_most "$sleeps" 10
}

strace -o /dev/null true 2>/dev/null || skip_all "strace may not trace here"
cleanup_fn end_launched poold
start_counted
[[ -s $tmp/calls ]] || skip_all "poold takes no preloaded library"
# Zones of a size that large disks have: a segment that is granted and freed costs some allocations. Room enough for little
# to be moved before it is overwritten.
ctl pool create tank "ram:$((volume_mib * 8))M" --zone-size 32M
make_volume v "${volume_mib}M"
load --rw write --bs 1m --depth 4 --count $((volume_mib * 5))
# Until what is kept from one checkpoint to the next is there.
load --rw randwrite --depth 128 --count $((requests / 4))

run_test "a read allocates nothing, locks nothing and makes no system call" reads
run_test "nor does a write, but for what serves thousands of them" writes
end_tests
