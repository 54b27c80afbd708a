#!/usr/bin/env bash
# Space as the administrator sees it: all of it comes back, in whatever order snapshots go; a full pool goes on as soon as it has a disk more.
# shellcheck source=tests/it/functions.sh
. "$(dirname "$0")/functions.sh"
requires qemu-io
requires_poold

io() {
    local command args=()
    for command in "$@"; do
        args+=(-c "$command")
    done
    timeout 60 qemu-io -f raw "nbd+unix:///?socket=$tmp/vol.nbd" "${args[@]}" >"$tmp/io"
    ! grep -qiE 'fail|error|mismatch' "$tmp/io"
}

free_bytes() {
    json .free_bytes pool show tank
}

is_free() {
    (($(free_bytes) >= $1))
}

make_pool 512M
at_first=$(free_bytes)

# Half a volume, three snapshots with writes between, all discarded, the snapshots deleted in random order.
all_space_comes_back() {
    local name
    ctl volume create tank/vol --size 256M
    ctl export add tank/vol --nbd "unix:$tmp/vol.nbd"
    io 'write -P 1 0 128M'
    for name in a b c; do
        ctl snapshot create "tank/vol@$name"
        io "write -P 2 $((RANDOM % 64))M 24M" "write -P 3 $((RANDOM % 200))M 8M"
    done
    io 'discard 0 256M'
    for name in $(shuf -e a b c); do
        echo "delete $name"
        ctl snapshot delete "tank/vol@$name" --yes
    done
    wait_until 60 is_free $((at_first * 99 / 100))
    ctl export remove "unix:$tmp/vol.nbd"
    ctl volume delete tank/vol --yes
}

parked() {
    [[ $(json .state volume show tank/vol) == parked ]]
}

not_parked() {
    ! parked
}

# A writer of more than there is room for sees no error; with a disk more its writes go on within a second.
a_disk_more_is_enough() {
    local since
    make_volume vol 3G
    launch writer "$BUILD/vhost-bench" --socket "$tmp/vol.vhost" --rw write --bs 128k --depth 8 --seconds 25
    wait_until 60 parked
    sleep 3
    truncate -s 4G "$disk_dir/more"
    since=${EPOCHREALTIME/./}
    ctl pool add tank "$disk_dir/more"
    wait_until 1 not_parked
    echo "goes on after $(((${EPOCHREALTIME/./} - since) / 1000)) ms"
    wait_until 60 ended writer
    cat "$tmp/writer.log"
    [[ $(exit_code_of writer) == 0 ]]
}

run_test "99 % of the space is free again within a minute" all_space_comes_back
run_test "a full pool goes on within a second of a new disk" a_disk_more_is_enough
end_tests
