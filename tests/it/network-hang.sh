#!/usr/bin/env bash
# One of three network disks of a redundant volume hangs (SIGSTOP): no request waits longer than the limit, nothing is lost, and the disk
# comes back. The same for a volume without redundancy: its requests wait for as long as it takes, and none fails.
# shellcheck source=tests/it/functions.sh
. "$(dirname "$0")/functions.sh"
requires_poold
requires nbdkit nbdinfo tgtd tgtadm jq
# shellcheck source=tests/it/servers.sh
. "$(dirname "$0")/servers.sh"

stall_s=5
for n in 1 2 3; do
    server_make "lun$n" iscsi 512M
done
server_make nbd nbd 512M

# load_start NAME SECONDS
load_start() {
    rm -f "$tmp/load-$1.rc"
    launch "load-$1" "$BUILD/vhost-bench" --socket "$tmp/$1.vhost" --rw randrw --bs 4k --depth 16 --flush-every 64 --range 64m \
        --seconds "$2" --verify --yield --json
}

load_is_well() {
    wait_until 120 test -s "$tmp/load-$1.rc"
    [[ $(<"$tmp/load-$1.rc") == 0 ]]
}

longest_ms() {
    grep '^{' "$tmp/load-$1.log" | jq '.max_us / 1000 | floor'
}

hang_is_short() {
    local longest
    load_start red 12
    sleep 2
    kill -STOP "$(pid_of lun2)"
    wait_until 10 server_disk_is lun2 failed
    load_is_well red
    longest=$(longest_ms red)
    echo "# longest request: $longest ms" >&3
    ((longest > 1000 && longest < stall_s * 1000 + 500))
    kill -CONT "$(pid_of lun2)"
}

# Taken back, and still in use a little later.
taken_back() {
    ctl disk online tank 1 || true
    sleep 1
    server_disk_is lun2 online
}

comes_back() {
    wait_until 30 taken_back
    load_start red 3
    load_is_well red
    server_disk_is lun2 online
}

plain_waits() {
    load_start plain 12
    sleep 1
    kill -STOP "$(pid_of nbd)"
    sleep 8
    kill -CONT "$(pid_of nbd)"
    load_is_well plain
    (($(longest_ms plain) > 7000))
}

cleanup_fn servers_end
cleanup_fn end_launched poold
servers_start
poold_start
ctl pool create tank "$(server_uri lun1)" "$(server_uri lun2)" "$(server_uri lun3)"
ctl volume create tank/red --size 128M --policy ec:2+1
ctl export add tank/red --vhost-user "$tmp/red.vhost"
ctl pool create alone "$(server_uri nbd)"
ctl volume create alone/plain --size 128M
ctl export add alone/plain --vhost-user "$tmp/plain.vhost"
run_test "a redundant volume stalls for at most $stall_s s" hang_is_short
run_test "the disk that hung is taken back" comes_back
run_test "without redundancy requests wait and none fails" plain_waits
end_tests
