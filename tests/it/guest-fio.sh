#!/usr/bin/env bash
# A guest's fio writes and verifies a volume: block sizes from 512 B to 1 MiB, random and in
# sequence, several jobs on several queues.
here=$(dirname "$0")
# shellcheck source=tests/it/functions.sh
. "$here/functions.sh"
# shellcheck source=tests/it/guest.sh
. "$here/guest.sh"
requires_guest

cat >"$tmp/script" <<'END'
. /lib/guest.sh
wait_disk vda || exit 1
value queues "$(ls /sys/block/vda/mq | wc -l)"
run_fio() {
    fio --eta=never --filename=/dev/vda --direct=1 --ioengine=libaio --verify=crc32c \
        --verify_fatal=1 --group_reporting "$@" >/tmp/fio.log 2>&1 || { cat /tmp/fio.log && return 1; }
}
verified() {
    step "$1" run_fio --name="$@"
}
verified small --rw=randwrite --bs=512 --iodepth=32 --size=1M --numjobs=2 --offset_increment=64M
verified mixed --rw=randrw --bsrange=512-1M --iodepth=16 --size=24M --numjobs=3 --offset_increment=64M
verified large --rw=write --bs=1M --iodepth=8 --size=64M --numjobs=2 --offset_increment=256M --offset=256M
verified again --rw=randwrite --bsrange=4k-256k --iodepth=32 --size=48M --numjobs=2 --offset_increment=32M \
    --verify_backlog=64 --randseed=7
step clean no_io_errors
END

make_pool 4G
make_volume data 1G --queues 2
GUEST_FIO=1 GUEST_QUEUES=2 guest_start "$tmp/script" "$tmp/data.vhost"

sees_two_queues() {
    guest_wait "value queues" 60
    [[ $(guest_value queues) == 2 ]]
}

run_test "the guest drives two queues" sees_two_queues
run_test "512 B random writes verify" guest_step small 60
run_test "mixed reads and writes of 512 B to 1 MiB verify" guest_step mixed 90
run_test "1 MiB sequential writes verify" guest_step large 60
run_test "rewritten extents verify" guest_step again 90
run_test "the guest's kernel reports no I/O error" guest_step clean 20
run_test "the guest ends by itself" guest_ends 20
end_tests
