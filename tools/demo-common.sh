# What the demonstrations have in common: titles, commands shown with what they print, a guest to follow. Sourced, with $root set; not a
# program.
#
# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # used by who sources it; functions.sh's variables
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

# write_guest_script: a file system, files of known content, and their verification.
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

# demo_needs PROGRAM...
demo_needs() {
    local program
    for program in "$@"; do
        command -v "$program" >/dev/null || give_up "'$program' is missing: run make deps"
    done
    [[ -x $POOLD && -x $POOLCTL ]] || give_up "'$POOLD' is not built: run make"
    tests/it/guest/build.sh "$guest_dir" || give_up "no guest could be built"
}
