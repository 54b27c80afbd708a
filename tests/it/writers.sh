#!/usr/bin/env bash
# A volume has one writer at a time, whoever asks: guests by vhost-user, clients by NBD, each on an export of its own.
# shellcheck source=tests/it/functions.sh
. "$(dirname "$0")/functions.sh"
requires_poold
requires qemu-io

# bench SOCKET OPTION...: a guest's driver.
bench() {
    local socket=$1
    shift
    timeout 120 "$BUILD/vhost-bench" --socket "$socket" --rw randwrite --depth 8 "$@"
}

# io COMMAND ADDRESS: a client by NBD that opens for writing.
io() {
    timeout 20 qemu-io -f raw -c "$1" "nbd+unix:///?socket=$2"
}

shown() {
    json ".$1" volume show tank/v
}

held() {
    [[ $(shown held) == true ]]
}

at_rest() {
    [[ $(shown held) == false ]]
}

# start_writer: a guest that writes until it is ended.
start_writer() {
    launch writer "$BUILD/vhost-bench" --socket "$tmp/v.vhost" --rw randwrite --depth 8 --seconds 600 --verify \
        --reconnect
    cleanup_fn end_launched writer
    wait_until 10 held
}

end_writer() {
    end_launched writer
    wait_until 10 at_rest
}

nobody_at_first() {
    [[ $(shown epoch) == 0 && $(shown holder) == null ]] && at_rest
    ctl volume show tank/v | grep -q '^writer *none$'
}

looking_changes_nothing() {
    io 'read 0 64k' "$tmp/v.nbd"
    [[ $(shown epoch) == 0 ]]
}

writer_is_told() {
    start_writer
    [[ $(shown epoch) == 1 ]]
    shown holder | grep -q "process $(pid_of writer) on '$tmp/v.vhost'"
    ctl volume show tank/v | grep -q "^writer *process $(pid_of writer)"
}

second_needs_standby() {
    ctl export add tank/v --vhost-user "$tmp/third.vhost" 2>"$tmp/refused" && return 1
    grep -q 'read-only or on standby' "$tmp/refused"
}

second_guest_is_refused() {
    bench "$tmp/second.vhost" --seconds 1 && return 1
    grep -q "second.vhost': no ring starts: volume 'v' is being written by process $(pid_of writer)" "$tmp/poold.log"
    running writer && held
}

nbd_client_only_reads() {
    io 'write -P 1 0 64k' "$tmp/v.nbd" && return 1
    io 'read 0 64k' "nothing" 2>/dev/null && return 1
    timeout 20 qemu-io -r -f raw -c 'read 0 64k' "nbd+unix:///?socket=$tmp/v.nbd"
    running writer && held
}

# The guest's front end comes back with the region that says who it is, and the others are still kept out.
survives_kill9() {
    local epoch
    epoch=$(shown epoch)
    poold_kill9
    poold_start
    wait_until 20 held
    (($(shown epoch) > epoch))
    second_guest_is_refused
}

next_one_may() {
    end_writer
    bench "$tmp/second.vhost" --count 2000 --verify
    io 'write -P 1 0 64k' "$tmp/v.nbd"
    bench "$tmp/v.vhost" --count 2000 --verify
}

# hold_by_nbd: a client that has written and stays. It leaves when its input ends.
hold_by_nbd() {
    # shellcheck disable=SC2094 # open for both, so that it does not wait
    launch holder sh -c "exec qemu-io -f raw 'nbd+unix:///?socket=$tmp/v.nbd' <'$tmp/commands'"
    cleanup_fn end_launched holder
    echo 'write -P 7 0 64k' >&"$commands"
    wait_until 10 held
}

nbd_client_keeps_guests_out() {
    hold_by_nbd
    shown holder | grep -q "process $(pid_of holder) by NBD"
    bench "$tmp/v.vhost" --seconds 1 && return 1
    io 'write -P 1 0 64k' "$tmp/v.nbd" && return 1
    timeout 20 qemu-io -r -f raw -c 'read -P 7 0 64k' "nbd+unix:///?socket=$tmp/v.nbd"
}

# Fenced: what it wrote stays, what it writes now does not arrive, and it says so.
fenced_client_fails() {
    ctl volume fence tank/v --yes
    wait_until 5 at_rest
    echo 'write -P 8 0 64k' >&"$commands"
    wait_until 10 grep -q 'write failed: Operation not permitted' "$tmp/holder.log"
    timeout 20 qemu-io -r -f raw -c 'read -P 7 0 64k' "nbd+unix:///?socket=$tmp/v.nbd"
    bench "$tmp/v.vhost" --count 1000 --verify
    end_launched holder
}

fenced_guest_fails() {
    start_writer
    ctl volume fence tank/v --yes
    wait_until 20 grep -q 'failed with status 1' "$tmp/writer.log"
    at_rest
    end_launched writer
    bench "$tmp/second.vhost" --count 1000 --verify
}

mkfifo "$tmp/commands"
exec {commands}<>"$tmp/commands"
make_pool 1G
make_volume v 64M
ctl export add tank/v --vhost-user "$tmp/second.vhost" --standby
ctl export add tank/v --nbd "unix:$tmp/v.nbd" --standby
run_test "nobody writes at first" nobody_at_first
run_test "who only looks is no writer" looking_changes_nothing
run_test "poolctl tells who writes" writer_is_told
run_test "a second export for writing has to say that it is on standby" second_needs_standby
run_test "a second guest is refused" second_guest_is_refused
run_test "an NBD client beside a guest may only read" nbd_client_only_reads
run_test "the guest goes on after kill -9, and the others do not" survives_kill9
run_test "whoever comes when the writer has gone may write" next_one_may
run_test "an NBD client keeps guests and other clients out" nbd_client_keeps_guests_out
run_test "a fenced client fails, and nothing of it arrives" fenced_client_fails
run_test "a fenced guest fails" fenced_guest_fails
end_tests
