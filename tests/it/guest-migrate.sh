#!/usr/bin/env bash
# A Linux guest with I/O in flight migrates from QEMU to QEMU, back and forth between two vhost-user sockets of one volume: pages
# that poold writes are in the log, and never do both have the volume.
#
#   ROUNDS=3   migrations        SEED=N   of the guest's I/O
#
# One CPU: with two, QEMU 7.2's emulator loses pages that the guest's own CPUs write while it migrates (so it does with a disk of its
# own in the place of ours), and the guest's kernel panics.
here=$(dirname "$0")
# shellcheck source=tests/it/functions.sh
. "$here/functions.sh"
# shellcheck source=tests/it/guest.sh
. "$here/guest.sh"
requires_guest
requires python3

rounds=${ROUNDS:-3}
seed=${SEED:-$RANDOM}
sockets=("$tmp/v.vhost" "$tmp/standby.vhost")

cat >"$tmp/script" <<END
. /lib/guest.sh
wait_disk vda || exit 1
hammer /dev/vda 64 $seed &
hammer=\$!
hear stop
kill \$hammer
step hammer wait \$hammer
step clean no_io_errors
END

qmp() {
    local number=$1
    shift
    python3 tests/it/qmp.py "$tmp/qmp$number" "$@"
}

# qemu_start NUMBER [OPTION...]: the guest's QEMU number 0, or one that it may come to. Each has a serial port of its own.
qemu_start() {
    local number=$1 options=()
    shift
    guest_options "${sockets[number % 2]}"
    mkfifo "$tmp/guest$number.in"
    : >"$tmp/guest$number.log"
    ln -s "guest$number.log" "$tmp/guest$number.out"
    options=("${options[@]/path=$tmp\/guest/path=$tmp/guest$number}")
    options=("${options[@]/path=$tmp\/console.log/path=$tmp/console$number.log}")
    cleanup_fn end_launched "qemu$number"
    launch "qemu$number" qemu-system-x86_64 "${options[@]}" -qmp "unix:$tmp/qmp$number,server=on,wait=off" "$@"
}

done_at() {
    sed -n 's/^@value hammer //p' "$tmp/guest$1.log" | tail -n 1
}

works_at() {
    local value
    value=$(done_at "$1")
    ((${value:-0} > $2)) || ended "qemu$1"
}

migrated() {
    [[ $(qmp "$1" query-migrate | jq -r .status) =~ completed|failed ]]
}

# one_move NUMBER: to the next QEMU, on the other socket.
one_move() {
    local from=$1 to=$(($1 + 1)) before
    qemu_start "$to" -incoming "unix:$tmp/move$to"
    wait_until 20 test -S "$tmp/move$to"
    qmp "$from" migrate "{\"uri\": \"unix:$tmp/move$to\"}"
    wait_until 60 migrated "$from"
    qmp "$from" query-migrate | jq -r '"\(.status), \(.downtime) ms"'
    [[ $(qmp "$from" query-migrate | jq -r .status) == completed ]]
    before=$(done_at "$from")
    wait_until 30 works_at "$to" "$before"
    running "qemu$to"
}

# The one that was left has been superseded: it may be told to go on, but the volume does not let it.
left_one_is_refused() {
    local from=$1 to=$(($1 + 1)) before
    [[ $(json .holder volume show tank/v) == "process $(pid_of "qemu$to") "* ]]
    qmp "$from" cont || true
    before=$(done_at "$to")
    wait_until 30 works_at "$to" "$((before + 100))"
    [[ $(json .holder volume show tank/v) == "process $(pid_of "qemu$to") "* ]]
    end_launched "qemu$from"
}

all_moves() {
    local i
    wait_until 60 works_at 0 0
    for ((i = 0; i < rounds; i++)); do
        one_move "$i" && left_one_is_refused "$i" || return
    done
}

step_ended() {
    grep -qaE "^@end $1 [0-9]+$" "$tmp/guest$rounds.log" || ended "qemu$rounds"
}

ends_well() {
    echo stop 1<>"$tmp/guest$rounds.in"
    wait_until 60 step_ended clean
    grep -qa '^@end hammer 0$' "$tmp/guest$rounds.log"
    grep -qa '^@end clean 0$' "$tmp/guest$rounds.log"
}

make_pool 2G
make_volume v 128M
ctl export add tank/v --vhost-user "${sockets[1]}" --standby
make_initrd "$tmp/script"
GUEST_MIB=320
GUEST_CPUS=1
qemu_start 0
run_test "a guest with I/O in flight migrates $rounds times (SEED=$seed)" all_moves
run_test "all that it wrote is there, and no I/O failed" ends_well
end_tests
