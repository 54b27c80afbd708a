#!/usr/bin/env bash
# After kill -9 under load the first I/O on a big volume is answered within a second of the
# restart, and a pool 16 times the size takes no longer.
#
#   RECOVERY_GIB=1   written before the kill (8 for the figure of the closing report)
# shellcheck source=tests/it/functions.sh
. "$(dirname "$0")/functions.sh"

bench=$BUILD/vhost-bench
gib=${RECOVERY_GIB:-1}
limit_ms=1000

# bench WORD...: on the volume's socket.
bench() {
    "$bench" --socket "$tmp/big.vhost" "$@"
}

# fill: the GiB in random places of the TiB, so that the map is large too.
fill() {
    bench --rw randwrite --bs 128k --depth 32 --count $((gib * 8192)) --seed 1
}

# kill_under_load: after two seconds of small random writes and reads.
kill_under_load() {
    launch load "$bench" --socket "$tmp/big.vhost" --rw randrw --bs 4k --depth 32 --seconds 60 --seed 2
    sleep 2
    alive "$(pid_of load)"
    poold_kill9
    end_launched load
}

# first_io: starts poold and does a read and a write as soon as the socket accepts; sets took_ms.
first_io() {
    local start_us=${EPOCHREALTIME/./}
    # shellcheck disable=SC2086 # POOLD_FLAGS holds words
    launch poold "$POOLD" --socket "$POOLD_SOCKET" --state "$tmp/state" ${POOLD_FLAGS:-}
    bench --first-io
    took_ms=$(((${EPOCHREALTIME/./} - start_us) / 1000))
    echo "first read and write $took_ms ms after the start, at most $limit_ms allowed"
}

recovers_in_time() {
    fill
    kill_under_load
    first_io
    echo "$took_ms" >"$tmp/took_ms"
    ((took_ms <= limit_ms))
}

# one_pool DISK_SIZE WHAT
one_pool() {
    make_disks 3 "$1"
    ctl pool create tank "${disks[@]}"
    make_volume big 1T
    rm -f "$tmp/took_ms"
    run_test "first I/O within 1 s after $gib GiB, $2" recovers_in_time
    [[ ! -s $tmp/took_ms ]] || echo "$2: $(<"$tmp/took_ms") ms from start to first I/O" | comment
    wait_until 10 poold_answers
    ctl export remove "$tmp/big.vhost"
    ctl pool destroy tank --yes
    rm -f "${disks[@]}"
}

requires_poold
[[ -x $bench ]] || skip_all "'$bench' is not built"
cleanup_fn end_launched poold
cleanup_fn end_launched load
poold_start
one_pool "$((gib * 2 + 2))G" "three disks of $((gib * 2 + 2)) GiB"
one_pool "$(((gib * 2 + 2) * 16))G" "a pool 16 times the size"
run_test "poold ends well" poold_stop
end_tests
