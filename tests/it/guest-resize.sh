#!/usr/bin/env bash
# A running guest sees its volume grow and can use the new part.
here=$(dirname "$0")
# shellcheck source=tests/it/functions.sh
. "$here/functions.sh"
# shellcheck source=tests/it/guest.sh
. "$here/guest.sh"
requires_guest

cat >"$tmp/script" <<'END'
. /lib/guest.sh
wait_disk vda || exit 1
value sectors "$(blockdev --getsz /dev/vda)"

grown() {
    left=300
    while [ "$(blockdev --getsz /dev/vda)" = "$1" ]; do
        left=$((left - 1))
        [ $left -gt 0 ] || return 1
        sleep 0.1
    done
    blockdev --getsz /dev/vda
}
# The last MiB of the disk is written and read back.
use_end() {
    last=$(($(blockdev --getsz /dev/vda) / 2048 - 1))
    dd if=/dev/urandom of=/tmp/a bs=1M count=1 2>/dev/null
    dd if=/tmp/a of=/dev/vda bs=1M seek=$last conv=fsync 2>/dev/null
    echo 3 >/proc/sys/vm/drop_caches
    dd if=/dev/vda of=/tmp/b bs=1M skip=$last 2>/dev/null
    cmp /tmp/a /tmp/b
}
# A mounted file system grows with its disk.
mkfs.ext4 -q -F /dev/vda
mount -t ext4 /dev/vda /mnt
mark ready
step grown grown 524288
value sectors "$(blockdev --getsz /dev/vda)"
step mounted touch /mnt/file
umount /mnt
step end use_end
step clean no_io_errors
END

make_pool 2G
make_volume grows 256M
guest_start "$tmp/script" "$tmp/grows.vhost"

has_size() {
    guest_wait "value sectors" 60
    [[ $(guest_value sectors) == "$1" ]]
}

sees_new_size() {
    guest_mark ready 60
    ctl volume resize tank/grows 1G
    guest_step grown 40
    guest_step mounted 20
    has_size 2097152
}

run_test "the guest sees the first size" has_size 524288
run_test "the running guest sees the new size" sees_new_size
run_test "the new part can be written and read" guest_step end 30
run_test "the guest's kernel reports no I/O error" guest_step clean 20
run_test "the guest ends by itself" guest_ends 20
end_tests
