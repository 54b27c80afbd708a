#!/usr/bin/env bash
# poold is killed again and again under a guest with 32 requests in flight on each of two
# volumes; the guest sees pauses, no errors, and every acknowledged byte.
#
#   ROUNDS=50   kills        SEED=N   of the guest's I/O and the moments of the kills
#
# On one volume hammer knows what each block must hold at any time (see guest/hammer.c); on the
# other fio writes and verifies the same range over and over.
here=$(dirname "$0")
# shellcheck source=tests/it/functions.sh
. "$here/functions.sh"
# shellcheck source=tests/it/guest.sh
. "$here/guest.sh"
requires_guest

rounds=${ROUNDS:-50}
seed=${SEED:-$RANDOM}
RANDOM=$seed

cat >"$tmp/script" <<END
. /lib/guest.sh
seed=$seed
END
cat >>"$tmp/script" <<'END'
wait_disk vda && wait_disk vdb || exit 1

# fio_loop: until told to stop, each time with other data; fails if any time did.
fio_loop() {
    n=0
    while [ ! -e /tmp/stop ]; do
        n=$((n + 1))
        fio --eta=never --name=loop --filename=/dev/vdb --direct=1 --ioengine=libaio \
            --rw=randrw --rwmixwrite=70 --bsrange=4k-1M --iodepth=32 --size=96M --verify=crc32c \
            --verify_fatal=1 --randseed=$((seed + n)) >/tmp/fio.log 2>&1 ||
            { cat /tmp/fio.log && return 1; }
    done
    echo "fio: $n runs, each verified"
}
hammer /dev/vda 256 $seed &
hammer=$!
fio_loop &
fio=$!
hear stop
touch /tmp/stop
kill $hammer
step hammer wait $hammer
step fio wait $fio
step clean no_io_errors
END

make_pool 8G
make_volume hammered 1G
make_volume written 1G
GUEST_FIO=1 guest_start "$tmp/script" "$tmp/hammered.vhost" "$tmp/written.vhost"

# has_done MORE_THAN: operations of hammer.
has_done() {
    local value
    value=$(guest_value hammer)
    ((${value:-0} > $1)) || ! alive "$(pid_of qemu)" || guest_said "exit"
}

guest_works() {
    wait_until "$2" has_done "$1" && (($(guest_value hammer) > $1))
}

# settled: hammer reports five times a second, QEMU waits a second before it connects again; so
# the value is still when this returns.
settled() {
    sleep 0.3
    guest_value hammer
}

# QEMU up to 8.2 never connects again if the back end dies while it is still being asked for its
# features, so no kill comes before both of its devices have their rings running again.
both_served() {
    [[ $(ctl --json export list | jq '[.[] | select(.queues_running > 0)] | length') == 2 ]]
}

one_kill() {
    local before
    sleep "0.$((RANDOM % 6))$((RANDOM % 10))"
    poold_kill9 && before=$(settled) && poold_start &&
        wait_until 20 both_served && guest_works "$before" 20
}

all_kills() {
    local round
    guest_works 0 60
    for ((round = 1; round <= rounds; round++)); do
        one_kill || {
            echo "round $round of $rounds, SEED=$seed: the guest stands still"
            return 1
        }
    done
}

ends_well() {
    guest_tell stop
    guest_step hammer 60
}

run_test "the guest goes on after each of $rounds kills (SEED=$seed)" all_kills
run_test "every block of the hammered volume holds what was acknowledged" ends_well
run_test "fio verified each of its runs" guest_step fio 60
run_test "the guest's kernel reports no I/O error" guest_step clean 20
run_test "the guest ends by itself" guest_ends 20
grep -aE '^(hammer|fio): ' "$tmp/guest.log" | comment
end_tests
