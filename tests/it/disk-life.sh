#!/usr/bin/env bash
# Disks that go and come back under a mirrored volume: nothing is lost, and what they missed is mended.
# shellcheck source=tests/it/functions.sh
. "$(dirname "$0")/functions.sh"
requires qemu-io
requires_poold

cleanup_fn end_launched poold
make_pool 512M
ctl volume create tank/web0 --size 64M --policy mirror2
ctl export add tank/web0 --nbd "unix:$tmp/web0.nbd"
uri="nbd+unix:///web0?socket=$tmp/web0.nbd"

# io COMMAND...: any pattern that does not match fails.
io() {
    local words=() command
    for command in "$@"; do
        words+=(-c "$command")
    done
    timeout 60 qemu-io -f raw "${words[@]}" "$uri" | tee "$tmp/io"
    ! grep -qiE 'fail|error' "$tmp/io"
}

disk_state() {
    json ".[] | select(.id == $1) | .state" disk list tank
}

is_state() {
    [[ $(disk_state "$1") == "$2" ]]
}

idle() {
    json '.running | not' scrub status tank >/dev/null
}

lost_nothing() {
    [[ $(json .lost_blocks scrub status tank) == 0 ]]
}

fails() {
    ! "$@"
}

policy_needs_its_disks() {
    fails ctl volume create tank/wide --size 64M --policy ec:4+2 2>"$tmp/err"
    grep -q 'needs 6 disks' "$tmp/err"
}

writes_go_on_without_a_disk() {
    io "write -P 1 0 16M" flush
    ctl disk offline tank 0
    is_state 0 offline
    io "read -P 1 0 16M" "write -P 2 8M 16M" flush "read -P 2 8M 16M"
}

second_disk_cannot_go_too() {
    fails ctl disk offline tank 1 2>"$tmp/err"
    grep -q 'cannot do without' "$tmp/err"
}

offline_stays_over_a_restart() {
    poold_stop
    poold_start
    is_state 0 offline
    io "read -P 1 0 8M" "read -P 2 8M 16M"
}

what_it_missed_is_mended() {
    ctl disk online tank 0
    wait_until 20 idle
    is_state 0 online
    ctl disk offline tank 1
    io "read -P 1 0 8M" "read -P 2 8M 16M"
    ctl disk online tank 1
    wait_until 20 idle
}

# Garbage all over the zones of a disk: its catalog and labels stay.
flipped_bits_are_healed() {
    local i
    for ((i = 0; i < 200; i++)); do
        printf 'rot' | dd of="${disks[2]}" bs=1 seek=$(((16 << 20) + i * 1048583)) conv=notrunc status=none
    done
    io "read -P 1 0 8M" "read -P 2 8M 16M"
    ctl scrub start tank
    wait_until 30 idle
    lost_nothing
    [[ $(json .mended scrub status tank) -gt 0 ]]
    ctl disk offline tank 0
    io "read -P 1 0 8M" "read -P 2 8M 16M"
    ctl disk online tank 0
    wait_until 20 idle
}

removed_disk_is_no_longer_needed() {
    ctl disk offline tank 0
    timeout 60 "$POOLCTL" disk remove tank 0
    [[ $(json length disk list tank) == 2 ]]
    poold_stop
    rm "${disks[0]}"
    poold_start
    is_state 1 online
    io "read -P 1 0 8M" "read -P 2 8M 16M"
    lost_nothing
}

run_test "a policy needs its disks" policy_needs_its_disks
run_test "writes go on without a disk" writes_go_on_without_a_disk
run_test "a second disk cannot go too" second_disk_cannot_go_too
run_test "a disk that is offline stays so over a restart" offline_stays_over_a_restart
run_test "what a disk missed is mended" what_it_missed_is_mended
run_test "flipped bits are healed" flipped_bits_are_healed
run_test "a disk that was removed is no longer needed" removed_disk_is_no_longer_needed
end_tests
