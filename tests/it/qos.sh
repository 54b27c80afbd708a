#!/usr/bin/env bash
# Limits of rate as guests and tools feel them: by vhost-user-blk and NBD alike, changed while they run, shared, kept and told.
# shellcheck source=tests/it/functions.sh
. "$(dirname "$0")/functions.sh"
requires qemu-io
requires_poold

make_pool 1G
make_volume one 64M
make_volume two 64M

# rate_of NAME SECONDS [OPTION...]: requests a second that a guest gets done.
rate_of() {
    "$BUILD/vhost-bench" --json --socket "$tmp/$1.vhost" --depth 16 --seconds "$2" --rw randwrite "${@:3}" | jq '.iops | floor'
}

# within LEAST VALUE MOST: the least leaves room for a machine that is busy with other things.
within() {
    echo "$2, wanted $1 to $3"
    (($1 <= $2 && $2 <= $3))
}

fails() {
    ! "$@"
}

is_limited() {
    ctl volume set tank/one --iops 500 --burst 0.01
    within 250 "$(rate_of one 2)" 530
    ctl --json volume show tank/one | jq -e '.options.iops == 500 and .options.burst_ms == 10 and .throttled > 500 and .throttled_us > 0'
    ctl volume show tank/one | grep -q 'limits *500 requests/s, burst 0.01 s'
    ctl --json stat | jq -e '.volumes[] | select(.volume == "tank/one") | .throttled > 500'
}

is_limited_in_bytes() {
    ctl volume set tank/one --iops 0 --bps 8M
    within 60 "$(rate_of one 2 --bs 64k)" 145
    ctl volume set tank/one --bps 0
    (($(rate_of one 1) > 200))
}

# What runs feels it at once.
changes_while_it_runs() {
    ctl volume set tank/one --iops 10
    launch slow "$BUILD/vhost-bench" --socket "$tmp/one.vhost" --depth 16 --count 20000 --rw randwrite --verify
    sleep 1
    alive "$(pid_of slow)"
    ctl volume set tank/one --iops 0
    wait_until 20 gone "$(pid_of slow)"
    cat "$tmp/slow.log"
    [[ $(exit_code_of slow) == 0 ]]
}

is_shared() {
    ctl qos set tank/bronze --iops 800 --burst 0.2
    ctl volume set tank/one --group bronze
    ctl volume set tank/two --group bronze
    rate_of one 3 >"$tmp/one.rate" &
    within 150 "$(rate_of two 3)" 500
    wait
    within 150 "$(cat "$tmp/one.rate")" 500
    ctl --json qos list tank | jq -e '.[0] | .group == "tank/bronze" and .volumes == 2 and .iops == 800'
    ctl qos list tank | grep -q '^tank/bronze  *800 requests/s'
}

lasts() {
    poold_kill9
    poold_start
    ctl --json volume show tank/two | jq -e '.options.group == "tank/bronze"'
    within 300 "$(rate_of two 2)" 900
    ctl qos set tank/bronze --iops 100
    within 50 "$(rate_of two 2)" 120
}

# NBD: 20 requests of 1 MiB at 10 MiB/s.
limits_nbd() {
    local begin
    ctl volume set tank/two --no-group --bps 10M --burst 0.01
    ctl export remove "$tmp/two.vhost"
    ctl export add tank/two --nbd "unix:$tmp/two.nbd"
    begin=${EPOCHREALTIME/./}
    qemu-io -f raw "nbd+unix:///?socket=$tmp/two.nbd" -c 'write -P 7 0 20M' -c 'read -P 7 0 1M' | tee "$tmp/out"
    grep -q 'read 1048576' "$tmp/out"
    within 1800000 $((${EPOCHREALTIME/./} - begin)) 3500000
}

# An export that ends does not wait for what is held back.
ends_at_once() {
    local begin
    ctl volume set tank/one --iops 1 --no-group
    launch stuck "$BUILD/vhost-bench" --socket "$tmp/one.vhost" --depth 64 --count 1000 --rw randwrite
    sleep 0.5
    begin=${EPOCHREALTIME/./}
    ctl export remove "$tmp/one.vhost"
    (((${EPOCHREALTIME/./} - begin) < 3000000))
    end_launched stuck
}

refused() {
    fails ctl volume set tank/one
    fails ctl volume set tank/one --iops x
    fails ctl volume set tank/one --iops -1
    fails ctl volume set tank/one --bps 1
    fails ctl volume set tank/one --burst 0
    fails ctl volume set tank/one --burst 3601
    fails ctl volume set tank/one --group nosuch
    fails ctl volume set tank/one --group a --no-group
    fails ctl qos set tank --iops 1
    fails ctl qos delete tank/nosuch
    ctl volume set tank/one --group bronze
    fails ctl qos delete tank/bronze
    ctl volume set tank/one --no-group
    ctl qos delete tank/bronze
    ctl qos list tank | grep -q 'no groups'
}

run_test "a guest's requests are limited, counted and told" is_limited
run_test "bytes are limited" is_limited_in_bytes
run_test "limits change while a guest runs" changes_while_it_runs
run_test "a group's volumes share its limits" is_shared
run_test "limits outlive kill -9" lasts
run_test "NBD is limited alike" limits_nbd
run_test "an export ends with requests held back" ends_at_once
run_test "what cannot be is refused" refused
run_test "SIGTERM ends poold with exit code 0" poold_stop
end_tests
