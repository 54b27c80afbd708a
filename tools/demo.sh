#!/usr/bin/env bash
# What the product does, in under three minutes: a pool of three sparse files, a thin volume, a
# guest with a stock Debian kernel on it, the daemon killed under the guest, and nothing lost.
# "make demo" runs it when everything is built. Needs no root and leaves nothing behind.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=tests/it/functions.sh
. "$root/tests/it/functions.sh"
# shellcheck source=tests/it/guest.sh
. "$root/tests/it/guest.sh"

bold='' dim='' green='' red='' plain=''
if [[ -t 1 && -z ${NO_COLOR:-} ]]; then
    bold=$'\e[1m' dim=$'\e[2m' green=$'\e[32m' red=$'\e[31m' plain=$'\e[0m'
fi
started=$SECONDS

title() {
    printf '\n%s== %s%s\n' "$bold" "$*" "$plain"
}

say() {
    printf '   %s\n' "$*"
}

# show WORD...: a poolctl command and what it prints.
show() {
    printf '   %s$ poolctl %s%s\n' "$dim" "${*//$tmp\//}" "$plain"
    ctl "$@" | sed "s|$tmp/||g; s/^/   /"
}

# guest_lines: what the guest has printed since the last call.
shown=0
guest_lines() {
    local lines
    mapfile -t lines < <(tail -n +$((shown + 1)) "$tmp/guest.log")
    shown=$((shown + ${#lines[@]}))
    ((${#lines[@]} == 0)) || printf '%s\n' "${lines[@]}" | sed -n "/^@/!s/^/   ${dim}guest |${plain} /p"
}

give_up() {
    printf '%s   %s%s\n' "$red" "$*" "$plain"
    show_logs
    finished=yes
    exit 1
}

# follow NAME SECONDS: until the guest's step has ended well.
follow() {
    guest_step "$@" >/dev/null || {
        guest_lines
        give_up "the guest did not get through '$1'"
    }
    guest_lines
}

write_guest_script() {
    cat >"$tmp/script" <<'END'
. /lib/guest.sh
make_fs() {
    echo "this is $(uname -sr), disk /dev/vda of $(($(blockdev --getsize64 /dev/vda) >> 30)) GiB"
    mkfs.ext4 -q -F /dev/vda && mount -t ext4 /dev/vda /mnt && cp -a /usr /mnt && sync
    df -h /mnt | sed 's/^/  /'
}
# Files of known content, each one flushed before the next.
write_files() {
    i=0
    while [ $i -lt "$1" ]; do
        i=$((i + 1))
        dd if=/dev/urandom of=/mnt/file$i bs=64k count=$((i % 8 + 1)) conv=fsync 2>/dev/null || return 1
        (cd /mnt && md5sum file$i) >>/tmp/sums
        [ $((i % 50)) != 0 ] || echo "$i files written and flushed, $(cut -d. -f1 /proc/uptime) s after boot"
        [ $i != 60 ] || mark writing
    done
}
verify() {
    echo 3 >/proc/sys/vm/drop_caches
    (cd /mnt && md5sum -c /tmp/sums >/tmp/result) && echo "$(wc -l </tmp/result) files read back, each as it was written"
    umount /mnt && e2fsck -f -n /dev/vda 2>/dev/null | tail -n 1
}
wait_disk vda || exit 1
step fs make_fs
step write write_files 300
step verify verify
step clean no_io_errors
END
}

kill_and_restart() {
    local killed_us up_us
    poold_kill9
    killed_us=${EPOCHREALTIME/./}
    guest_lines
    say "poold is dead; the guest's requests wait"
    sleep 2
    up_us=${EPOCHREALTIME/./}
    poold_start >/dev/null || give_up "poold did not come back"
    say "started again $(((up_us - killed_us) / 1000)) ms later, ready and serving after $(((${EPOCHREALTIME/./} - up_us) / 1000)) ms"
}

main() {
    cleanup_fn end_launched poold
    title "A pool of three sparse files"
    poold_start >/dev/null || give_up "poold did not start"
    make_disks 3 4G
    show pool create tank "${disks[@]}"
    show pool show tank

    title "A thin volume of 20 GiB, more than the pool has"
    show volume create tank/web0 --size 20G
    show export add tank/web0 --vhost-user "$tmp/web0.vhost" --queues 2

    title "A guest boots on it, makes a file system and writes"
    write_guest_script
    GUEST_QUEUES=2 guest_start "$tmp/script" "$tmp/web0.vhost"
    follow fs 60
    guest_mark writing 30 >/dev/null || give_up "the guest does not write"
    guest_lines

    title "kill -9 poold, while the guest writes"
    kill_and_restart
    follow write 60

    title "The guest verifies"
    follow verify 60
    follow clean 10
    say "its kernel saw no I/O error"
    guest_ends 20 >/dev/null || give_up "the guest did not end"

    title "What is left in the pool"
    show pool list
    show volume list
    show status
    poold_stop
    finished=yes
    printf '\n%sNothing was lost. %d seconds.%s\n' "$green" $((SECONDS - started)) "$plain"
}

for program in qemu-system-x86_64 busybox cpio fio jq; do
    command -v "$program" >/dev/null || give_up "'$program' is missing: run make deps"
done
[[ -x $POOLD && -x $POOLCTL ]] || give_up "'$POOLD' is not built: run make"
tests/it/guest/build.sh "$guest_dir" || give_up "no guest could be built"
main
