#!/usr/bin/env bash
# A pool on one network disk beside load straight on the same server: 4 KiB, random, depth 32.
#
#   network.sh               SECONDS=N seconds each (5); BUILD=DIR (build); PROGRAMS=DIR (BUILD/release)
#
# NBD: nbdkit with its memory plugin; straight is fio's nbd engine. iSCSI: tgt on a file in /dev/shm; straight is our own driver
# without a pool (fio of Debian has no iSCSI).
set -euo pipefail
cd "$(dirname "$0")/../.."
BUILD=${BUILD:-build}
PROGRAMS=${PROGRAMS:-$BUILD/release}
seconds=${BENCH_SECONDS:-5}
export PATH=$PATH:/usr/sbin
tmp=$(mktemp -d /dev/shm/pool-bench.XXXXXX)
pids=()

end() {
    local pid
    for pid in "${pids[@]}"; do
        kill -KILL "$pid" 2>/dev/null || true
    done
    wait 2>/dev/null || true
    rm -rf "$tmp"
}
trap end EXIT

start() {
    "$@" >>"$tmp/log" 2>&1 &
    pids+=($!)
}

wait_for() {
    for _ in {1..500}; do
        "$@" >/dev/null 2>&1 && return
        sleep 0.02
    done
    echo "network.sh: timed out: $*" >&2
    tail -n 5 "$tmp/log" >&2
    exit 1
}

# pooled NAME URI: a pool on the disk, and load by vhost-user-blk.
pooled() {
    local ctl=("$PROGRAMS/poolctl" --socket "$tmp/$1.sock") mode
    start "$PROGRAMS/poold" --socket "$tmp/$1.sock" --state "$tmp/$1.state" --cores 1
    wait_for "${ctl[@]}" status
    "${ctl[@]}" pool create tank "$2" >/dev/null
    "${ctl[@]}" volume create tank/v --size 256M >/dev/null
    "${ctl[@]}" export add tank/v --vhost-user "$tmp/$1.vhost" >/dev/null
    taskset -c 0 "$BUILD/vhost-bench" --socket "$tmp/$1.vhost" --rw write --bs 64k --depth 8 --count 4096 >/dev/null
    for mode in randread randwrite; do
        printf '%s %s pooled ' "$1" $mode
        taskset -c 0 "$BUILD/vhost-bench" --socket "$tmp/$1.vhost" --rw $mode --depth 32 --seconds "$seconds" --warmup 1 --json |
            jq '.iops | floor'
    done
    kill "${pids[-1]}"
    wait "${pids[-1]}" || true
}

start nbdkit --foreground --unix "$tmp/nbd" memory 4G
wait_for test -S "$tmp/nbd"
uri="nbd+unix:///?socket=$tmp/nbd"
fio --name=fill --ioengine=nbd --uri="$uri" --rw=write --bs=1M --iodepth=4 --size=1G >/dev/null
for mode in randread randwrite; do
    printf 'nbd %s straight ' $mode
    taskset -c 0 fio --name=x --ioengine=nbd --uri="$uri" --rw=$mode --bs=4k --iodepth=32 --size=1G --time_based --runtime="$seconds" \
        --output-format=json --output="$tmp/fio" >/dev/null && sed -n '/^{/,$p' "$tmp/fio" | jq ".jobs[0].${mode#rand}.iops | floor"
done
pooled nbd "$uri"

truncate -s 4G "$tmp/lun"
export TGT_IPC_SOCKET=$tmp/tgt
start tgtd -f --iscsi portal=127.0.0.1:13260 -C 1
wait_for test -S "$tmp/tgt.1"
admin() {
    tgtadm -C 1 --lld iscsi "$@"
}
wait_for admin --op new --mode target --tid 1 -T iqn.2024-01.bench:disk
admin --op new --mode logicalunit --tid 1 --lun 1 -b "$tmp/lun"
admin --op bind --mode target --tid 1 -I ALL
uri=iscsi://127.0.0.1:13260/iqn.2024-01.bench:disk/1
for mode in randread randwrite; do
    printf 'iscsi %s straight ' $mode
    taskset -c 0 "$PROGRAMS/bench/disk" "$uri" $mode 32 "$seconds"
done
pooled iscsi "$uri"
