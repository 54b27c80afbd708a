#!/usr/bin/env bash
# poolvm serves a guest's disk from a volume: verified I/O, resets, pauses, resizes, killed and restarted back ends.
here=$(dirname "$0")
# shellcheck source=tests/it/functions.sh
. "$here/functions.sh"
# shellcheck source=tests/it/vmm.sh
. "$here/vmm.sh"
requires_kvm
make_pool 4G

# fresh_disk NAME: an empty volume, exported.
fresh_disk() {
    make_volume "$1" 64M --queues 2
}

verified_io() {
    fresh_disk io
    vm_start io "ios=50000 depth=16 pages=1000" --mem 64M --disk "$tmp/io.vhost"
    vm_passes io 60
}

polled_io() {
    fresh_disk polled
    vm_start polled "ios=20000 depth=1 poll" --mem 64M --disk "$tmp/polled.vhost"
    vm_passes polled 60
}

high_memory() {
    fresh_disk high
    vm_start high "ios=2000" --mem 5G --disk "$tmp/high.vhost"
    vm_passes high 60
}

guest_resets() {
    fresh_disk boots
    vm_start boots "boots=5" --mem 64M --disk "$tmp/boots.vhost"
    vm_passes boots 30
    vm_said boots '^PASS boots 5$'
    [[ $(grep -c '^first' "$tmp/boots.serial") == 5 ]]
}

reset_button() {
    fresh_disk button
    vm_start button "ios=0" --mem 64M --disk "$tmp/button.vhost"
    vm_wait button '^first' 10
    vm_call button reset
    wait_until 10 eval '[[ $(grep -c "^first" "$tmp/button.serial") == 2 ]]'
    vm_end button
}

# The guest counts nothing while it is stopped, and goes on afterwards.
stop_and_cont() {
    local before
    fresh_disk pause
    vm_start pause "ios=0" --mem 64M --disk "$tmp/pause.vhost"
    vm_wait pause '^@ios' 20
    vm_call pause stop | jq -e '.state == "paused"'
    before=$(stat -c %s "$tmp/pause.serial")
    sleep 1
    [[ $(stat -c %s "$tmp/pause.serial") == "$before" ]]
    vm_call pause cont | jq -e '.state == "running"'
    wait_until 10 eval "(( \$(stat -c %s '$tmp/pause.serial') > $before ))"
    vm_end pause
}

many_pauses() {
    local i
    fresh_disk pauses
    vm_start pauses "ios=100000 depth=16 pages=500" --mem 64M --disk "$tmp/pauses.vhost"
    vm_wait pauses '^first' 10
    for ((i = 0; i < 30; i++)); do
        # The guest may be done before.
        vm_call pauses stop >/dev/null || break
        vm_call pauses cont >/dev/null || break
    done
    ((i > 2))
    vm_passes pauses 60
}

resize_is_seen() {
    fresh_disk grow
    vm_start grow "ios=0" --mem 64M --disk "$tmp/grow.vhost"
    vm_wait grow '^first' 10
    ctl volume resize tank/grow 96M
    vm_wait grow "^capacity $((96 * 2048))\$" 10
    vm_call grow status | jq -e '.disks[0].size_bytes == 100663296'
    vm_end grow
}

back_end_killed() {
    local i
    fresh_disk kill
    vm_start kill "ios=200000 depth=32" --mem 64M --disk "$tmp/kill.vhost"
    vm_wait kill '^first' 10
    for ((i = 0; i < 8; i++)); do
        sleep "0.$((RANDOM % 4))"
        poold_kill9
        vm_call kill status >/dev/null || break
        poold_start
    done
    vm_passes kill 120
    grep -q 'lost its back end' "$tmp/kill.log"
}

late_back_end() {
    "$POOLVM" --kernel "$tmp/guest.bin" --disk "$tmp/none" --disk-wait 200 </dev/null >"$tmp/late.out" 2>&1 && return 1
    grep -q "cannot connect to disk '$tmp/none': No such file or directory" "$tmp/late.out"
}

run_test "50000 verified I/Os with interrupts" verified_io
run_test "20000 verified I/Os by polling" polled_io
run_test "a guest with memory above 4 GiB" high_memory
run_test "the guest resets itself and boots again" guest_resets
run_test "the reset button" reset_button
run_test "stop and cont" stop_and_cont
run_test "30 pauses under verified I/O" many_pauses
run_test "a resize reaches the guest" resize_is_seen
run_test "a back end killed 8 times under verified I/O" back_end_killed
run_test "a back end that never comes is an error that says so" late_back_end
end_tests
