#!/usr/bin/env bash
# What the product does, in under three minutes: a pool of three sparse files, a thin volume, a
# guest with a stock Debian kernel on it, the daemon killed under the guest, and nothing lost.
# "make demo" runs it when everything is built. Needs no root and leaves nothing behind.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=tools/demo-common.sh
. "$root/tools/demo-common.sh"

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

demo_needs qemu-system-x86_64 busybox cpio fio jq
main
