#!/usr/bin/env bash
# A pool of an NBD export and an iSCSI LUN under verified load, while their servers are killed, restarted and stopped.
#
#   ROUNDS=8   kills of each server        SEED=N   of the moments
# shellcheck source=tests/it/functions.sh
. "$(dirname "$0")/functions.sh"
requires_poold
requires nbdkit nbdinfo tgtd tgtadm jq

rounds=${ROUNDS:-8}
RANDOM=${SEED:-$RANDOM}
# shellcheck source=tests/it/servers.sh
. "$(dirname "$0")/servers.sh"
server_make nbd nbd 1G
server_make iscsi iscsi 1G
nbd_uri=$(server_uri nbd timeout=2)
iscsi_uri=$(server_uri iscsi timeout=2)
port=${server_port[iscsi]}

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
            server_start $server
        done
    done
    wait_until 20 servers_online
    load_is_well
}

survives_a_hang() {
    load_start 8
    sleep 1
    kill -STOP "$(pid_of nbd)"
    wait_until 10 server_disk_is nbd away
    kill -KILL "$(pid_of nbd)"
    server_start nbd
    kill -STOP "$(pid_of iscsi)"
    wait_until 10 server_disk_is iscsi away
    kill -CONT "$(pid_of iscsi)"
    wait_until 20 servers_online
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
    server_start nbd
    ctl pool import "$nbd_uri" "$iscsi_uri"
}

# discovered SERVER: "DISK SIZE WHY" lines
discovered() {
    ctl --json disk discover "$1" | jq -r '.[] | "\(.disk) \(.size_bytes) \(.why)"'
}

tells_what_servers_offer() {
    tgt iscsi --op new --mode target --tid 2 -T iqn.2024-01.test:secret
    tgt iscsi --op new --mode logicalunit --tid 2 --lun 7 -b "$disk_dir/iscsi"
    tgt iscsi --op bind --mode target --tid 2 -I ALL
    tgt iscsi --op new --mode account --user guest --password twelve-chars
    tgt iscsi --op bind --mode account --tid 2 --user guest
    echo twelve-chars >"$tmp/secret"
    echo wrong-secret >"$tmp/wrong"
    if ctl disk discover "iscsi://127.0.0.1:$port?timeout=1" 2>"$tmp/why"; then
        return 1
    fi
    grep "no option 'timeout'" "$tmp/why"
    discovered "iscsi://127.0.0.1:$port" | tee "$tmp/found"
    grep -x "iscsi://127.0.0.1:$port/iqn.2024-01.test:iscsi/1 1073741824 " "$tmp/found"
    grep "^iscsi://127.0.0.1:$port/iqn.2024-01.test:secret 0 portal" "$tmp/found"
    discovered "iscsi://guest@127.0.0.1:$port?secret-file=$tmp/secret" |
        grep -x "iscsi://guest@127.0.0.1:$port/iqn.2024-01.test:secret/7?secret-file=$tmp/secret 1073741824 "
    ctl disk probe "iscsi://guest@127.0.0.1:$port/iqn.2024-01.test:secret/7?secret-file=$tmp/secret"
    discovered "iscsi://guest@127.0.0.1:$port?secret-file=$tmp/wrong" | grep -c 'secret?secret-file=.* 0 portal'
    [[ $(discovered "nbd+unix:///?socket=$tmp/nbd.socket") == "nbd+unix:///?socket=$tmp/nbd.socket 0 " ]]
    ctl disk discover "nbd+unix:///?socket=$tmp/nbd.socket" | grep DISK
    tgt iscsi --op delete --force --mode target --tid 2
}

cleanup_fn servers_end
cleanup_fn end_launched poold
servers_start
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
