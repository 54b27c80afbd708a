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

disk_count_is() {
    [[ $(json length disk list tank) == "$1" ]]
}

used_is_zero() {
    [[ $(json ".[] | select(.id == $1) | .used_bytes" disk list tank) == 0 ]]
}

drained_disk_can_be_removed() {
    ctl pool add tank "$tmp/new0.img" --create-size 512M --domain shelf2
    [[ $(json '.[] | select(.domain == "shelf2") | .state' disk list tank) == online ]]
    ctl disk drain tank 1
    is_state 1 draining
    wait_until 30 used_is_zero 1
    io "read -P 1 0 8M" "read -P 2 8M 16M" "write -P 3 24M 8M" flush
    used_is_zero 1
    ctl disk remove tank 1
    disk_count_is 2
    io "read -P 1 0 8M" "read -P 2 8M 16M" "read -P 3 24M 8M"
    lost_nothing
}

drain_that_leaves_too_few_disks_is_refused() {
    fails ctl disk drain tank 2 2>"$tmp/err"
    grep -q 'needs 2 disks' "$tmp/err"
}

replaced_disk_leaves_by_itself() {
    truncate -s 512M "$tmp/new1.img"
    ctl disk replace tank 2 "$tmp/new1.img"
    wait_until 30 disk_count_is 2
    fails disk_state 2
    io "read -P 1 0 8M" "read -P 2 8M 16M" "read -P 3 24M 8M"
    lost_nothing
}

spare_takes_over_from_a_missing_disk() {
    local lost
    ctl pool add tank "$tmp/spare.img" --create-size 512M --spare
    lost=$(json '.[] | select(.state == "online") | .disk' disk list tank | tail -n 1)
    poold_stop
    mv "$lost" "$tmp/taken"
    POOLD_FLAGS="--spare-after 1s" poold_start
    wait_until 30 fails has_state spare
    wait_until 30 nothing_to_rebuild
    io "read -P 1 0 8M" "read -P 2 8M 16M" "read -P 3 24M 8M"
    lost_nothing
}

has_state() {
    json ".[] | select(.state == \"$1\") | .id" disk list tank | grep -q .
}

nothing_to_rebuild() {
    [[ $(json .rebuild_left_bytes pool show tank) == 0 ]]
}

run_test "a policy needs its disks" policy_needs_its_disks
run_test "writes go on without a disk" writes_go_on_without_a_disk
run_test "a second disk cannot go too" second_disk_cannot_go_too
run_test "a disk that is offline stays so over a restart" offline_stays_over_a_restart
run_test "what a disk missed is mended" what_it_missed_is_mended
run_test "flipped bits are healed" flipped_bits_are_healed
run_test "a disk that was removed is no longer needed" removed_disk_is_no_longer_needed
run_test "a disk that was drained can be removed" drained_disk_can_be_removed
run_test "a drain that leaves too few disks is refused" drain_that_leaves_too_few_disks_is_refused
run_test "a disk that was replaced leaves by itself" replaced_disk_leaves_by_itself
run_test "a spare takes over from a missing disk" spare_takes_over_from_a_missing_disk
end_tests
