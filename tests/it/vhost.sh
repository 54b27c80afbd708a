#!/usr/bin/env bash
# vhost-user-blk with clients of our own: whole sessions as they should be, sessions of hostile front ends, and what
# becomes of requests that wait for space when poold stops.
# shellcheck source=tests/it/functions.sh
. "$(dirname "$0")/functions.sh"
requires_poold

# ---- clients ----

semantics() {
    timeout 300 "$BUILD/vhost-semantics" --socket "$tmp/web0.vhost" --server-pid "$(pid_of poold)" \
        --resize-cmd "'$POOLCTL' volume resize tank/web0 +64M"
}

# hostile OPTION...
hostile() {
    timeout 600 "$BUILD/vhost-hostile" --socket "$tmp/web0.vhost" --server-pid "$(pid_of poold)" "$@"
}

# is_logged CASE PATTERN: whoever runs the host hears which export has trouble. An export has a line a second.
is_logged() {
    sleep 1.1
    hostile --only "$1"
    grep -F " warning: export '$tmp/web0.vhost': " "$tmp/poold.log" | grep -E ": $2"
}

make_pool 1G
make_volume web0 256M
make_volume other 64M
run_test "well-behaved sessions (build/vhost-semantics)" semantics
run_test "hostile front ends are survived (build/vhost-hostile)" hostile --other-socket "$tmp/other.vhost"
run_test "a refused message is logged" is_logged "unknown requests" "unknown request \\([0-9]+\\) is refused: "
run_test "a ring given up is logged" is_logged "descriptor points at itself" "ring 0 is given up: "
ctl pool destroy tank --force --yes >/dev/null

# ---- a full pool ----

writer_is_parked() {
    [[ $(json '.state' volume show tank/full) == parked ]]
}

# Ends poold by SIGTERM, within 2 s.
stops_soon() {
    local began=${EPOCHREALTIME/./}
    poold_stop
    ((${EPOCHREALTIME/./} - began < 2000000))
}

# A volume larger than its pool, written until the pool is full, by a client that comes back whatever happens.
fill_the_pool() {
    make_disks 1 256M
    ctl pool create tank "${disks[@]}"
    make_volume full 400M
    launch writer "$BUILD/vhost-bench" --socket "$tmp/full.vhost" --rw write --bs 64k --depth 32 --count 6400 \
        --verify --reconnect
    wait_until 60 writer_is_parked
}

stops_while_parked() {
    stops_soon
    poold_start
    wait_until 20 writer_is_parked
    stops_soon
    poold_start
}

export_removed_while_parked() {
    wait_until 20 writer_is_parked
    timeout 2 "$POOLCTL" export remove tank/full
    ctl export add tank/full --vhost-user "$tmp/full.vhost"
    wait_until 20 writer_is_parked
}

goes_on_with_space() {
    truncate -s 1G "$tmp/more"
    ctl pool add tank "$tmp/more"
    wait_until 60 gone "$(pid_of writer)"
    cat "$tmp/writer.log"
    [[ $(exit_code_of writer) == 0 ]]
}

# An NBD client gets no answer, and loses its connection.
nbd_is_dropped() {
    ctl export remove tank/full
    ctl volume create tank/nbd --size 2G
    ctl export add tank/nbd --nbd "unix:$tmp/nbd.sock"
    launch nbd fio --name=fill --ioengine=nbd --uri="nbd+unix:///?socket=$tmp/nbd.sock" --rw=write --bs=64k \
        --iodepth=32 --size=2G
    wait_until 60 eval '[[ $(json .state volume show tank/nbd) == parked ]]'
    timeout 2 "$POOLCTL" export remove tank/nbd
    wait_until 10 gone "$(pid_of nbd)"
    ctl volume delete tank/nbd --yes
}

run_test "a pool is filled by a guest" fill_the_pool
run_test "SIGTERM ends poold at once though writes wait for space" stops_while_parked
run_test "and so is an export removed" export_removed_while_parked
run_test "with space the guest's writes are done, and nothing is lost" goes_on_with_space
if command -v fio >/dev/null; then
    run_test "NBD requests that wait for space are dropped with their connection" nbd_is_dropped
else
    skip_test "NBD requests that wait for space are dropped with their connection" "fio is not installed"
fi
end_launched writer
end_tests
