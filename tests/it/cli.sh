#!/usr/bin/env bash
# The life of pools, volumes and exports as the administrator sees it: poolctl against poold.
# shellcheck source=tests/it/functions.sh
. "$(dirname "$0")/functions.sh"
requires python3
requires_poold

# fails COMMAND...: with an exit code from 1 to 125 (no crash) and a message on stderr.
fails() {
    local rc=0
    "$@" >"$tmp/fails.out" 2>"$tmp/fails.err" || rc=$?
    cat "$tmp/fails.err"
    ((rc >= 1 && rc <= 125)) && [[ -s $tmp/fails.err ]]
}

# fails_saying PATTERN COMMAND...
fails_saying() {
    local pattern=$1
    shift
    fails "$@" && grep -qiE "$pattern" "$tmp/fails.err"
}

# lists PATTERN WORD...: what "poolctl WORD..." prints holds the pattern.
lists() {
    local pattern=$1
    shift
    ctl "$@" | tee "$tmp/lists.out"
    grep -qE -- "$pattern" "$tmp/lists.out"
}

lists_not() {
    ! lists "$@"
}

# field FILTER WANT WORD...
field() {
    local filter=$1 want=$2 got
    shift 2
    got=$(json "$filter" "$@")
    echo "$filter of '$*' is '$got', wanted '$want'"
    [[ $got == "$want" ]]
}

is_json() {
    ctl --json "$@" | python3 -m json.tool
}

socket_answers() {
    python3 - "$1" <<'END'
import socket, sys
socket.socket(socket.AF_UNIX).connect(sys.argv[1])
END
}

socket_is_private() {
    [[ $(stat -c %a "$POOLD_SOCKET") == 600 ]]
}

# ---- the daemon ----

starts_twice_on_a_socket() {
    fails timeout 10 "$POOLD" --socket "$POOLD_SOCKET" --state "$tmp/state2"
    poold_answers
}

run_test "poolctl without a daemon fails and says so" fails_saying "$POOLD_SOCKET" ctl status
cleanup_fn end_launched poold
run_test "poold starts with an empty state folder" poold_start
run_test "the control socket is its owner's only" socket_is_private
run_test "a second poold on the socket is refused" starts_twice_on_a_socket
run_test "an unknown command exits with 2" eval '{ ctl frobnicate || [[ $? == 2 ]]; }'

# ---- pools ----

make_disks 4 2G
three=("${disks[@]:0:3}")

disk_with_file_system() {
    truncate -s 256M "$disk_dir/ext4"
    mkfs.ext4 -q -F "$disk_dir/ext4"
    fails_saying "ext|file ?system|force" ctl pool create other "$disk_dir/ext4"
    e2fsck -f -n "$disk_dir/ext4"
}

forced_over_file_system() {
    ctl pool create other "$disk_dir/ext4" --force
    ctl pool destroy other --yes
}

create_is_whole_or_not() {
    fails ctl pool create half "${disks[3]}" "$tmp/no-such-disk"
    lists_not '^half\b' pool list
    ctl pool create half "${disks[3]}"
    ctl pool destroy half --yes
}

run_test "a pool of three sparse files is created" ctl pool create tank "${three[@]}"
run_test "pool list shows it" lists '\btank\b' pool list
run_test "pool show names its disks" lists "${disks[2]}" pool show tank
run_test "a pool of that name is refused" fails_saying tank ctl pool create tank "${disks[3]}"
run_test "a disk of another pool is refused" fails_saying 'tank|pool' ctl pool create other "${disks[0]}"
run_test "a disk that holds a file system is refused, untouched" disk_with_file_system
run_test "--force takes it" forced_over_file_system
run_test "a missing disk leaves nothing half made" create_is_whole_or_not
run_test "a bad pool name is refused" fails ctl pool create ../evil "${disks[3]}"
run_test "a disk is added" ctl pool add tank "${disks[3]}"
run_test "pool show names the added disk" lists "${disks[3]}" pool show tank

# ---- volumes ----

delete_frees_name() {
    ctl volume create tank/again --size 1G
    ctl volume delete tank/again --yes
    ctl volume create tank/again --size 2G
    ctl volume delete tank/again --yes
}

run_test "a volume larger than the pool is created thin" ctl volume create tank/web0 --size 1T
run_test "volume show tells its size" field .size_bytes $((1 << 40)) volume show tank/web0
run_test "a new volume holds nothing" field .referenced_bytes 0 volume show tank/web0
run_test "a volume of that name is refused" fails_saying web0 ctl volume create tank/web0 --size 1G
run_test "a volume in no pool is refused" fails_saying nopool ctl volume create nopool/web0 --size 1G
run_test "a bad size is refused" fails ctl volume create tank/bad --size 12parsecs
run_test "a bad volume name is refused" fails ctl volume create tank/-dash --size 1G
run_test "a volume is renamed" ctl volume rename tank/web0 tank/web1
run_test "volume list shows the new name" lists '\bweb1\b' volume list
run_test "volume list forgets the old name" lists_not '\bweb0\b' volume list
run_test "a volume is resized" ctl volume resize tank/web1 2T
run_test "volume show tells the new size" field .size_bytes $((2 << 40)) volume show tank/web1
run_test "a volume is not resized to nothing" fails_saying "size 0" ctl volume resize tank/web1 0 --force
run_test "a deleted volume frees its name" delete_frees_name
run_test "deleting an unknown volume fails" fails_saying nosuch ctl volume delete tank/nosuch --yes

# ---- exports ----

run_test "a volume is exported" ctl export add tank/web1 --vhost-user "$tmp/web1.vhost" --queues 2
run_test "the export's socket accepts" socket_answers "$tmp/web1.vhost"
run_test "export list shows it" lists "$tmp/web1.vhost" export list
run_test "a second export on the path is refused" fails ctl export add tank/web1 --vhost-user "$tmp/web1.vhost"
run_test "an exported volume is not deleted" fails_saying export ctl volume delete tank/web1 --yes

# ---- JSON ----

for words in status stat "pool list" "pool show tank" "volume list" "volume show tank/web1" "export list"; do
    # shellcheck disable=SC2086 # the words of one command
    run_test "--json $words is JSON" is_json $words
done

# ---- restarts ----

poold2_answers() {
    ctl --socket "$tmp/poold2.sock" status >/dev/null 2>&1
}

second_poold_on_pool() {
    launch poold2 "$POOLD" --socket "$tmp/poold2.sock" --state "$tmp/state2"
    cleanup_fn end_launched poold2
    wait_until 10 poold2_answers
    fails ctl --socket "$tmp/poold2.sock" pool import "${disks[@]}"
    end_launched poold2
    ctl volume show tank/web1
}

restarts_cleanly() {
    poold_stop
    fails ctl status
    poold_start
    lists "$tmp/web1.vhost" export list
    socket_answers "$tmp/web1.vhost"
}

restarts_after_kill() {
    poold_kill9
    poold_start
    lists "$tmp/web1.vhost" export list
    socket_answers "$tmp/web1.vhost"
    field .size_bytes $((2 << 40)) volume show tank/web1
}

run_test "a second poold on the pool is refused" second_poold_on_pool
run_test "a restart serves the exports again" restarts_cleanly
run_test "so does a restart after kill -9" restarts_after_kill

# ---- and back ----

export_and_import() {
    ctl pool export tank
    lists_not '\btank\b' pool list
    ctl pool import "${disks[@]}"
    field .size_bytes $((2 << 40)) volume show tank/web1
}

remove_export() {
    ctl export remove "$tmp/web1.vhost"
    fails socket_answers "$tmp/web1.vhost"
    lists_not web1.vhost export list
}

destroyed_disks_are_free() {
    ctl pool destroy tank --yes
    lists_not '\btank\b' pool list
    ctl pool create fresh "${disks[@]}"
    ctl pool destroy fresh --yes
}

run_test "an export is removed, its socket too" remove_export
run_test "a pool is exported and imported" export_and_import
run_test "the disks of a destroyed pool can be used again" destroyed_disks_are_free
run_test "SIGTERM ends poold with exit code 0" poold_stop
end_tests
