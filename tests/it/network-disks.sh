#!/usr/bin/env bash
# A pool of an NBD export and an iSCSI LUN under verified load, while their servers are killed, restarted and stopped.
#
#   ROUNDS=8   kills of each server        SEED=N   of the moments
#
# nbdkit's cache filter holds what is not flushed in memory of its own, so a kill loses it.
# shellcheck source=tests/it/functions.sh
. "$(dirname "$0")/functions.sh"
requires_poold
requires nbdkit nbdinfo tgtd tgtadm jq

rounds=${ROUNDS:-8}
RANDOM=${SEED:-$RANDOM}
export TGT_IPC_SOCKET=$tmp/tgt
iqn=iqn.2024-01.test:disk
port=$((20000 + RANDOM % 10000))
nbd_uri="nbd+unix:///?socket=$tmp/nbd.socket&timeout=2"
iscsi_uri="iscsi://127.0.0.1:$port/$iqn/1?timeout=2"
truncate -s 1G "$disk_dir/nbd" "$disk_dir/lun"

nbd_start() {
    rm -f "$tmp/nbd.socket"
    launch nbd nbdkit --foreground --unix "$tmp/nbd.socket" --filter=cache file "$disk_dir/nbd" cache=writeback
    wait_until 10 nbdinfo --size "nbd+unix:///?socket=$tmp/nbd.socket" >/dev/null
}

tgt() {
    tgtadm -C 1 --lld iscsi "$@"
}

iscsi_start() {
    rm -f "$tmp"/tgt.*
    launch iscsi tgtd -f --iscsi "portal=127.0.0.1:$port" -C 1
    wait_until 10 tgt --op show --mode target
    tgt --op new --mode target --tid 1 -T $iqn
    tgt --op new --mode logicalunit --tid 1 --lun 1 -b "$disk_dir/lun"
    tgt --op bind --mode target --tid 1 -I ALL
}

# server_kill NAME
server_kill() {
    kill -KILL "$(pid_of "$1")"
    wait_until 10 gone "$(pid_of "$1")"
}

servers_end() {
    server_kill nbd
    server_kill iscsi
}

# disk_is URI STATE
disk_is() {
    [[ $(ctl --json pool show tank | jq -r --arg disk "$1" '.disks[] | select(.disk == $disk).state') == "$2" ]]
}

all_online() {
    disk_is "$nbd_uri" online && disk_is "$iscsi_uri" online
}

bench() {
    "$BUILD/vhost-bench" --socket "$tmp/v.vhost" "$@"
}

load_start() {
    launch load "$BUILD/vhost-bench" --socket "$tmp/v.vhost" --rw randrw --bs 4k --depth 32 --flush-every 64 --range 256m \
        --seconds "$1" --verify --connect-timeout 60
}

load_is_well() {
    wait_until 120 test -s "$tmp/load.rc"
    [[ $(<"$tmp/load.rc") == 0 ]]
}

survives_kills() {
    local i server
    load_start 20
    for ((i = 0; i < rounds; i++)); do
        for server in nbd iscsi; do
            sleep "0.$((RANDOM % 9 + 1))"
            server_kill $server
            sleep "0.$((RANDOM % 4))"
            "${server}_start"
        done
    done
    wait_until 20 all_online
    load_is_well
}

survives_a_hang() {
    load_start 8
    sleep 1
    kill -STOP "$(pid_of nbd)"
    wait_until 10 disk_is "$nbd_uri" away
    kill -KILL "$(pid_of nbd)"
    nbd_start
    kill -STOP "$(pid_of iscsi)"
    wait_until 10 disk_is "$iscsi_uri" away
    kill -CONT "$(pid_of iscsi)"
    wait_until 20 all_online
    load_is_well
}

reopens() {
    ctl pool export tank --force
    ctl pool import "$nbd_uri" "$iscsi_uri"
    ctl volume list tank | grep -q tank/v
}

tells_what_is_missing() {
    ctl pool export tank --force
    server_kill nbd
    if ctl pool import "$nbd_uri" "$iscsi_uri" 2>"$tmp/missing"; then
        return 1
    fi
    grep "no connection to.*Connection refused" "$tmp/missing"
    nbd_start
    ctl pool import "$nbd_uri" "$iscsi_uri"
}

# discovered SERVER: "DISK SIZE WHY" lines
discovered() {
    ctl --json disk discover "$1" | jq -r '.[] | "\(.disk) \(.size_bytes) \(.why)"'
}

tells_what_servers_offer() {
    tgt --op new --mode target --tid 2 -T iqn.2024-01.test:secret
    tgt --op new --mode logicalunit --tid 2 --lun 7 -b "$disk_dir/lun"
    tgt --op bind --mode target --tid 2 -I ALL
    tgt --op new --mode account --user guest --password twelve-chars
    tgt --op bind --mode account --tid 2 --user guest
    echo twelve-chars >"$tmp/secret"
    echo wrong-secret >"$tmp/wrong"
    if ctl disk discover "iscsi://127.0.0.1:$port?timeout=1" 2>"$tmp/why"; then
        return 1
    fi
    grep "no option 'timeout'" "$tmp/why"
    discovered "iscsi://127.0.0.1:$port" | tee "$tmp/found"
    grep -x "iscsi://127.0.0.1:$port/$iqn/1 1073741824 " "$tmp/found"
    grep "^iscsi://127.0.0.1:$port/iqn.2024-01.test:secret 0 portal" "$tmp/found"
    discovered "iscsi://guest@127.0.0.1:$port?secret-file=$tmp/secret" |
        grep -x "iscsi://guest@127.0.0.1:$port/iqn.2024-01.test:secret/7?secret-file=$tmp/secret 1073741824 "
    ctl disk probe "iscsi://guest@127.0.0.1:$port/iqn.2024-01.test:secret/7?secret-file=$tmp/secret"
    discovered "iscsi://guest@127.0.0.1:$port?secret-file=$tmp/wrong" | grep -c 'secret?secret-file=.* 0 portal'
    [[ $(discovered "nbd+unix:///?socket=$tmp/nbd.socket") == "nbd+unix:///?socket=$tmp/nbd.socket 0 " ]]
    ctl disk discover "nbd+unix:///?socket=$tmp/nbd.socket" | grep DISK
    tgt --op delete --force --mode target --tid 2
}

cleanup_fn servers_end
cleanup_fn end_launched poold
nbd_start
iscsi_start
poold_start
run_test "servers tell what disks they offer" tells_what_servers_offer
ctl pool create tank "$nbd_uri" "$iscsi_uri"
ctl volume create tank/v --size 512M
ctl export add tank/v --vhost-user "$tmp/v.vhost"
run_test "verified load outlives $rounds kills of each server" survives_kills
run_test "verified load outlives servers that hang" survives_a_hang
run_test "the pool opens again" reopens
run_test "a server that is not there is named" tells_what_is_missing
end_tests
