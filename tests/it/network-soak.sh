#!/usr/bin/env bash
# Servers of network disks are killed and restarted at random, for many rounds, under load that verifies all it reads: two volumes, one
# plain and one ec:2+1, over three iSCSI targets and an NBD server. Nothing may be lost or get stuck, and poold may not grow.
# "make soak-network" runs it.
#
#   ROUNDS=200   kills      SEED=N   of the moments
# shellcheck source=tests/it/functions.sh
. "$(dirname "$0")/functions.sh"
requires_poold
requires nbdkit nbdinfo tgtd tgtadm jq

rounds=${ROUNDS:-200}
seed=${SEED:-$RANDOM}
RANDOM=$seed
# shellcheck source=tests/it/servers.sh
. "$(dirname "$0")/servers.sh"
server_make lun1 iscsi 512M
server_make lun2 iscsi 512M
server_make lun3 iscsi 512M
server_make nbd nbd 512M
warm_rounds=$((rounds / 2))
growth_kib_max=8192

# The plain volume's requests wait for every server, so that none is lost to the pool: stall= is longer than any pause.
disks=()
for name in "${server_names[@]}"; do
    disks+=("$(server_uri "$name" "timeout=2&stall=600")")
done

load_start() {
    rm -f "$tmp/load-$1.rc"
    launch "load-$1" "$BUILD/vhost-bench" --socket "$tmp/$1.vhost" --rw randrw --bs 4k --depth 16 --flush-every 64 --range 64m \
        --seconds 10 --verify --yield --table "$tmp/$1.table"
}

load_goes_on() {
    [[ -s $tmp/load-$1.rc ]] || return 0
    [[ $(<"$tmp/load-$1.rc") == 0 ]] || return 1
    load_start "$1"
}

load_ends_well() {
    wait_until 120 test -s "$tmp/load-$1.rc"
    [[ $(<"$tmp/load-$1.rc") == 0 ]]
}

descriptors() {
    find "/proc/$(pid_of poold)/fd" -mindepth 1 | wc -l
}

# What is allocated, not what is resident: a disk's keep is touched little by little.
heap_kib() {
    ctl --json stat | jq '.memory.heap_bytes / 1024 | floor'
}

outlives_all() {
    local round server before_fds=0 before_kib=0 fds kib
    load_start plain
    load_start red
    for ((round = 1; round <= rounds; round++)); do
        server=${server_names[RANDOM % ${#server_names[@]}]}
        sleep "0.$((RANDOM % 9 + 1))"
        server_kill "$server"
        sleep "0.$((RANDOM % 6))"
        server_start "$server"
        wait_until 30 servers_online || { ctl --json pool show tank | jq -c ".disks[]"; return 1; }
        load_goes_on plain
        load_goes_on red
        if ((round == warm_rounds)); then
            before_fds=$(descriptors)
            before_kib=$(heap_kib)
        fi
        ((round % 20 != 0)) || echo "# round $round: $(descriptors) descriptors, $(heap_kib) KiB" >&3
    done
    load_ends_well plain
    load_ends_well red
    fds=$(descriptors)
    kib=$(heap_kib)
    echo "# seed $seed: $before_fds descriptors and $before_kib KiB after $warm_rounds rounds, $fds and $kib KiB in the end" >&3
    ((fds <= before_fds && kib <= before_kib + growth_kib_max))
}

is_whole() {
    "$BUILD/vhost-bench" --socket "$tmp/plain.vhost" --range 64m --table "$tmp/plain.table" --verify-only
    "$BUILD/vhost-bench" --socket "$tmp/red.vhost" --range 64m --table "$tmp/red.table" --verify-only
}

cleanup_fn servers_end
cleanup_fn end_launched poold
servers_start
poold_start
ctl pool create tank "${disks[@]}"
ctl volume create tank/plain --size 64M
ctl volume create tank/red --size 64M --policy ec:2+1
ctl export add tank/plain --vhost-user "$tmp/plain.vhost"
ctl export add tank/red --vhost-user "$tmp/red.vhost"
run_test "$rounds kills of four servers: nothing lost, stuck or grown" outlives_all
run_test "in the end all that was written is there" is_whole
end_tests
