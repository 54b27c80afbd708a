#!/usr/bin/env bash
# A pool on one network disk beside load straight on the same server: 4 KiB, random, depth 32.
#
#   network.sh               BENCH_SECONDS=N seconds each (4), BENCH_ROUNDS=N (2); BUILD=DIR (build); PROGRAMS=DIR (BUILD/release)
#
# NBD: nbdkit with its memory plugin; straight is fio's nbd engine. iSCSI: tgt on a file in /dev/shm; straight is iscsi-perf for reads
# and our own driver without a pool for writes, which iscsi-perf cannot do (fio of Debian has no iSCSI).
#
# The disk is written wholly before either is measured, so that neither pays for memory that the server has not touched yet. The
# server is on CPU 0, what loads it straight on CPU 1. Pooled, poold is on CPU 1 and its client shares CPU 0 with the server,
# giving way whenever it has nothing to do.
set -euo pipefail
cd "$(dirname "$0")/../.."
BUILD=${BUILD:-build}
PROGRAMS=${PROGRAMS:-$BUILD/release}
seconds=${BENCH_SECONDS:-4}
rounds=${BENCH_ROUNDS:-2}
export PATH=$PATH:/usr/sbin
tmp=$(mktemp -d /dev/shm/pool-bench.XXXXXX)
pids=()
declare -A best

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

# Ends what was started last.
stop() {
    kill "${pids[-1]}"
    wait "${pids[-1]}" || true
    unset 'pids[-1]'
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

# keep KEY IOPS: the best of the rounds, since whatever else runs only takes away
keep() {
    printf '%-22s %8d\n' "$1" "$2"
    if (($2 > ${best[$1]:-0})); then
        best[$1]=$2
    fi
}

# pooled NAME URI: a pool on the disk, and load by vhost-user-blk.
pooled() {
    local ctl=("$PROGRAMS/poolctl" --socket "$tmp/$1.sock") mode
    local client=(taskset -c 0 "$BUILD/vhost-bench" --socket "$tmp/$1.vhost" --yield)
    start "$PROGRAMS/poold" --socket "$tmp/$1.sock" --state "$tmp/$1.state" --cores 1
    wait_for "${ctl[@]}" status
    "${ctl[@]}" pool create tank "$2" --force >/dev/null
    "${ctl[@]}" volume create tank/v --size 256M >/dev/null
    "${ctl[@]}" export add tank/v --vhost-user "$tmp/$1.vhost" >/dev/null
    "${client[@]}" --rw write --bs 64k --depth 8 --count 4096 >/dev/null
    for mode in randread randwrite; do
        keep "$1 $mode pooled" "$("${client[@]}" --rw $mode --depth 32 --seconds "$seconds" --warmup 1 --json | jq '.iops | floor')"
    done
    stop
    rm -rf "$tmp/$1.state"
}

fio_straight() {
    taskset -c 1 fio --name=x --ioengine=nbd --uri="$1" --rw="$2" --bs=4k --iodepth=32 --size=2G --time_based --runtime="$seconds" \
        --output-format=json --output="$tmp/fio" >/dev/null
    sed -n '/^{/,$p' "$tmp/fio" | jq ".jobs[0].${2#rand}.iops | floor"
}

nbd_round() {
    local mode
    for mode in randread randwrite; do
        keep "nbd $mode straight" "$(fio_straight "$1" $mode)"
    done
    pooled nbd "$1"
}

iscsi_round() {
    keep "iscsi randread straight" \
        "$(taskset -c 1 iscsi-perf -r -m 32 -b 8 -t "$seconds" "$1" 2>&1 | grep -ao 'iops average [0-9]*' | tail -n 1 | sed 's/.* //')"
    keep "iscsi randwrite straight" "$(taskset -c 1 "$PROGRAMS/bench/disk" "$1" randwrite 32 "$seconds" | sed 's/ .*//')"
    pooled iscsi "$1"
}

# report NAME MODE WANTED
report() {
    local straight=${best[$1 $2 straight]} pooled=${best[$1 $2 pooled]}
    printf '%-5s %-9s  straight %8d  pooled %8d  ratio %s (wanted %s)\n' "$1" "$2" "$straight" "$pooled" \
        "$(jq -n "$pooled / $straight * 100 | round / 100")" "$3"
}

start taskset -c 0 nbdkit --foreground --unix "$tmp/nbd" memory 2G
wait_for test -S "$tmp/nbd"
uri="nbd+unix:///?socket=$tmp/nbd"
fio --name=fill --ioengine=nbd --uri="$uri" --rw=write --bs=1M --iodepth=4 --size=2G >/dev/null
for ((round = 0; round < rounds; round++)); do
    nbd_round "$uri"
done
stop

dd if=/dev/zero of="$tmp/lun" bs=1M count=2048 status=none
export TGT_IPC_SOCKET=$tmp/tgt
start taskset -c 0 tgtd -f --iscsi portal=127.0.0.1:13260 -C 1
wait_for test -S "$tmp/tgt.1"
admin() {
    tgtadm -C 1 --lld iscsi "$@"
}
wait_for admin --op new --mode target --tid 1 -T iqn.2024-01.bench:disk
admin --op new --mode logicalunit --tid 1 --lun 1 -b "$tmp/lun"
admin --op bind --mode target --tid 1 -I ALL
for ((round = 0; round < rounds; round++)); do
    iscsi_round iscsi://127.0.0.1:13260/iqn.2024-01.bench:disk/1
done

for name in nbd iscsi; do
    report $name randread 0.8
    report $name randwrite 2
done
