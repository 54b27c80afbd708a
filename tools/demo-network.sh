#!/usr/bin/env bash
# Disks on the network, in under three minutes: three iSCSI targets and an NBD server become one pool, a guest with a stock Debian
# kernel runs on an ec:2+1 volume across them, one target is killed under it and comes back, and nothing is lost.
# "make demo-network" runs it when everything is built. Needs no root and leaves nothing behind.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=tools/demo-common.sh
. "$root/tools/demo-common.sh"
# shellcheck source=tests/it/servers.sh
. "$root/tests/it/servers.sh"

# How long until the pool goes on without the server that was killed.
kill_target() {
    local killed_us=${EPOCHREALTIME/./}
    server_kill target2
    guest_lines
    say "target2 is dead, with whatever its cache held; the guest's requests wait"
    wait_until 10 server_disk_is target2 failed >/dev/null || give_up "the pool did not give the disk up"
    say "after $(((${EPOCHREALTIME/./} - killed_us) / 1000)) ms the pool goes on without it"
    show disk list tank
}

taken_back() {
    ctl disk online tank 1 || true
    sleep 1
    servers_online
}

bring_back() {
    server_start target2 >/dev/null || give_up "target2 did not come back"
    say "target2 serves again"
    wait_until 20 taken_back >/dev/null 2>&1 || give_up "the disk was not taken back"
    show disk list tank
}

main() {
    local name disks=()
    cleanup_fn servers_end
    cleanup_fn end_launched poold
    for name in target1 target2 target3; do
        server_make $name iscsi 1G
    done
    server_make export4 nbd 1G
    title "Three iSCSI targets and an NBD server"
    servers_start >/dev/null || give_up "the servers did not start"
    poold_start >/dev/null || give_up "poold did not start"
    for name in "${server_names[@]}"; do
        disks+=("$(server_uri "$name" 'timeout=3&stall=5')")
        show disk discover "$(server_uri "$name" | sed 's|\(iscsi://[^/]*\).*|\1|')"
    done

    title "One pool of them"
    show pool create tank "${disks[@]}"

    title "A volume across them: two parts data, one part parity"
    show volume create tank/web0 --size 1G --policy ec:2+1
    show export add tank/web0 --vhost-user "$tmp/web0.vhost" --queues 2

    title "A guest boots on it, makes a file system and writes"
    write_guest_script
    GUEST_QUEUES=2 guest_start "$tmp/script" "$tmp/web0.vhost"
    follow fs 60
    guest_mark writing 30 >/dev/null || give_up "the guest does not write"
    guest_lines

    title "kill -9 target2, while the guest writes"
    kill_target
    follow write 60

    title "target2 comes back"
    bring_back

    title "The guest verifies"
    follow verify 60
    follow clean 10
    say "its kernel saw no I/O error"
    guest_ends 20 >/dev/null || give_up "the guest did not end"

    title "What is left in the pool"
    show pool show tank
    poold_stop
    finished=yes
    printf '\n%sNothing was lost. %d seconds.%s\n' "$green" $((SECONDS - started)) "$plain"
}

demo_needs qemu-system-x86_64 busybox cpio fio jq tgtd tgtadm nbdkit nbdinfo
main
