#!/usr/bin/env bash
# A guest makes file systems on a volume, fills them, checks them and gives space back.
here=$(dirname "$0")
# shellcheck source=tests/it/functions.sh
. "$here/functions.sh"
# shellcheck source=tests/it/guest.sh
. "$here/guest.sh"
requires_guest

cat >"$tmp/script" <<'END'
. /lib/guest.sh
wait_disk vda || exit 1
modprobe xfs

# The tree to copy: the guest's own system, and many small files.
make_tree() {
    mkdir -p /tmp/tree/small
    cp -a /usr /tmp/tree
    i=0
    while [ $i -lt 400 ]; do
        dd if=/dev/urandom of=/tmp/tree/small/$i bs=997 count=$((i % 9 + 1)) 2>/dev/null
        i=$((i + 1))
    done
}
sums() {
    (cd "$1" && find . -type f | sort | xargs md5sum)
}
copy() {
    mount -t "$1" /dev/vda /mnt && cp -a /tmp/tree/. /mnt && sync && umount /mnt
}
compare() {
    echo 3 >/proc/sys/vm/drop_caches
    mount -t "$1" /dev/vda /mnt && sums /mnt >/tmp/found && umount /mnt && cmp /tmp/sums /tmp/found
}
trim() {
    mount -t "$1" /dev/vda /mnt && rm -rf /mnt/usr /mnt/small && sync && fstrim -v /mnt && umount /mnt
}
make_ext4() { mkfs.ext4 -q -F /dev/vda; }
make_xfs() { mkfs.xfs -q -f /dev/vda; }
check_ext4() { e2fsck -f -n /dev/vda; }
check_xfs() { xfs_repair -n /dev/vda; }

make_tree
sums /tmp/tree >/tmp/sums
for fs in ext4 xfs; do
    step $fs-make make_$fs
    step $fs-copy copy $fs
    step $fs-check check_$fs
    step $fs-compare compare $fs
    hear $fs-measured
    step $fs-trim trim $fs
    step $fs-recheck check_$fs
done
hear trimmed
step discard blkdiscard /dev/vda
hear measured
step zeroes cmp -n 67108864 /dev/vda /dev/zero
step clean no_io_errors
END

make_pool 2G
make_volume fs 1G
guest_start "$tmp/script" "$tmp/fs.vhost"

allocated_mib() {
    echo $(($(json .referenced_bytes volume show tank/fs) >> 20))
}

# trim_frees FS: the files' space is in use before, and free after.
trim_frees() {
    local before after
    before=$(allocated_mib)
    guest_tell "$1-measured"
    guest_step "$1-trim" 30
    after=$(allocated_mib)
    echo "$before MiB allocated before the trim, $after MiB after"
    ((before >= 10 && after <= before - 8))
}

discard_frees_all() {
    guest_tell trimmed
    guest_step discard 30
    echo "$(allocated_mib) MiB still allocated"
    (($(allocated_mib) == 0))
}

reads_zeroes() {
    guest_tell measured
    guest_step zeroes 30
}

for fs in ext4 xfs; do
    run_test "$fs: mkfs" guest_step $fs-make 60
    run_test "$fs: a tree is copied" guest_step $fs-copy 60
    run_test "$fs: fsck finds nothing" guest_step $fs-check 60
    run_test "$fs: the tree reads back the same" guest_step $fs-compare 60
    run_test "$fs: fstrim gives space back" trim_frees $fs
    run_test "$fs: fsck finds nothing after the trim" guest_step $fs-recheck 60
done
run_test "blkdiscard gives all space back" discard_frees_all
run_test "a discarded volume reads as zeroes" reads_zeroes
run_test "the guest's kernel reports no I/O error" guest_step clean 20
run_test "the guest ends by itself" guest_ends 20
end_tests
