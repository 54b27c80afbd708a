#!/usr/bin/env bash
# Snapshots sent from one pool and received in another, whole and by differences, broken off and gone on with, damaged; disk images
# imported and exported by qemu-img.
# shellcheck source=tests/it/functions.sh
. "$(dirname "$0")/functions.sh"
requires nbdcopy qemu-img qemu-io sha256sum script
requires_poold

size=$((96 << 20))

uri() {
    echo "nbd+unix:///?socket=$tmp/$1.nbd"
}

# io COMMAND...: on tank/web0, by qemu-io.
io() {
    local command args=()
    for command in "$@"; do
        args+=(-c "$command")
    done
    timeout 60 qemu-io -f raw "$(uri web0)" "${args[@]}" >"$tmp/io"
    ! grep -qiE 'fail|error|mismatch' "$tmp/io"
}

# sum_of IMAGE: of all the data of a snapshot or volume, which is not exported.
sum_of() {
    ctl export add "$1" --nbd "unix:$tmp/sum.nbd" --read-only >/dev/null
    timeout 60 nbdcopy "$(uri sum)" - | sha256sum
    ctl export remove "unix:$tmp/sum.nbd" >/dev/null
}

# same IMAGE IMAGE
same() {
    local a b
    a=$(sum_of "$1")
    b=$(sum_of "$2")
    echo "$1 $a, $2 $b"
    [[ $a == "$b" ]]
}

# fails_with CODE PATTERN COMMAND...: standard input and output are the caller's.
fails_with() {
    local want=$1 pattern=$2 rc=0
    shift 2
    "$@" 2>"$tmp/fails.err" || rc=$?
    cat "$tmp/fails.err" >&2
    echo "exit code $rc, wanted $want" >&2
    [[ $rc == "$want" ]] && grep -qE -- "$pattern" "$tmp/fails.err"
}

# is FILTER WANT WORD...
is() {
    local filter=$1 want=$2 got
    shift 2
    got=$(ctl --json "$@" | jq -r "$filter")
    echo "$filter of '$*' is '$got', wanted '$want'"
    [[ $got == "$want" ]]
}

snapshot_names() {
    ctl --json snapshot list "$1" | jq -r '[.[].name] | sort | join(" ")'
}

make_pool 1G
for n in 1 2 3; do
    truncate -s 1G "$disk_dir/other$n"
done
ctl pool create dest "$disk_dir"/other{1,2,3}
ctl volume create tank/web0 --size "$size" --policy mirror2
ctl export add tank/web0 --nbd "unix:$tmp/web0.nbd"
io 'write -P 1 0 20M' 'write -P 2 40M 20M' 'write -P 3 95M 1M'
ctl snapshot create tank/web0@mon
io 'write -P 4 10M 3M' 'discard 15M 2M' 'write -P 5 70M 4k' 'write -z 45M 1M'
ctl snapshot create tank/web0@tue
io 'write -P 6 0 4k' 'discard 70M 4k'
ctl snapshot create tank/web0@wed
dd if=/dev/urandom of="$tmp/noise" bs=1M count=20 status=none
io "write -s $tmp/noise 20M 20M"
ctl snapshot create tank/web0@thu

# ---- sending and receiving ----

everything_arrives() {
    ctl send tank/web0@tue >"$tmp/full"
    ctl recv dest/web0 <"$tmp/full"
    [[ $(snapshot_names dest/web0) == "mon tue" ]]
    same dest/web0@mon tank/web0@mon
    same dest/web0@tue tank/web0@tue
    same dest/web0 dest/web0@tue
    is .policy mirror2 volume show dest/web0
    is .state ok volume show dest/web0
    is .size_bytes "$size" volume show dest/web0
    is .guid "$(json .guid snapshot show tank/web0@tue)" snapshot show dest/web0@tue
    is .created_s "$(json .created_s snapshot show tank/web0@tue)" snapshot show dest/web0@tue
}

holes_stay_holes() {
    local bytes
    bytes=$(json .referenced_bytes snapshot show tank/web0@tue)
    is .referenced_bytes "$bytes" snapshot show dest/web0@tue
}

differences_arrive() {
    ctl send tank/web0@thu --since tue >"$tmp/part"
    (($(stat -c %s "$tmp/part") < 22 << 20))
    ctl recv dest/web0 <"$tmp/part"
    [[ $(snapshot_names dest/web0) == "mon thu tue wed" ]]
    same dest/web0@wed tank/web0@wed
    same dest/web0@thu tank/web0@thu
}

# What has arrived can be sent on, and is the same base.
goes_on_from_there() {
    ctl send dest/web0@tue --since mon | ctl recv dest/web0 2>"$tmp/err" && return 1
    ctl send dest/web0@mon | ctl recv dest/copy
    ctl send tank/web0@tue --since tank/web0@mon | ctl recv dest/copy
    same dest/copy@tue tank/web0@tue
    ctl volume delete dest/copy --snapshots --yes
}

compression_makes_it_smaller() {
    ctl send tank/web0@mon --compress >"$tmp/small"
    (($(stat -c %s "$tmp/small") < $(stat -c %s "$tmp/full") / 20))
    ctl recv dest/small <"$tmp/small"
    same dest/small@mon tank/web0@mon
    ctl volume delete dest/small --snapshots --yes
}

same_again() {
    ctl send tank/web0@thu >"$tmp/a"
    ctl send tank/web0@thu | cmp - "$tmp/a"
}

wrong_bases_are_refused() {
    ctl volume create dest/empty --size 1M
    fails_with 4 'has not the snapshot' ctl recv dest/empty <"$tmp/part"
    is .state ok volume show dest/empty
    ctl volume delete dest/empty --yes
    fails_with 5 'exists' ctl recv dest/web0 <"$tmp/full"
    ctl send tank/web0@mon | ctl recv dest/moved
    ctl export add dest/moved --nbd "unix:$tmp/moved.nbd"
    ctl send tank/web0@tue --since mon >"$tmp/step"
    fails_with 5 'remove the export' ctl recv dest/moved <"$tmp/step"
    timeout 60 qemu-io -f raw "$(uri moved)" -c 'write -P 9 0 512'
    ctl export remove "unix:$tmp/moved.nbd"
    fails_with 5 'has changed since' ctl recv dest/moved <"$tmp/step"
    [[ $(snapshot_names dest/moved) == mon ]]
    ctl snapshot rollback dest/moved@mon --yes
    ctl recv dest/moved <"$tmp/step"
    same dest/moved@tue tank/web0@tue
    ctl volume delete dest/moved --snapshots --yes
    fails_with 2 'not older' ctl send tank/web0@mon --since tue
    fails_with 4 'no snapshot' ctl send tank/web0@nosuch
}

# ---- breaking off ----

# What has come is no snapshot, cannot be used, and is gone on with.
cut_off() {
    local at=$1
    head -c "$at" "$tmp/full" | fails_with 1 'ends before it is complete' ctl recv dest/cut
    is .state receiving volume show dest/cut
    [[ $(snapshot_names dest/cut) == "$2" ]]
    fails_with 5 'being received' ctl export add dest/cut --nbd "unix:$tmp/cut.nbd"
    fails_with 5 'being received' ctl snapshot create dest/cut@mine
    fails_with 5 'being received' ctl clone dest/cut dest/mine
    poold_kill9
    poold_start
    is .state receiving volume show dest/cut
    ctl recv dest/cut --resume <"$tmp/full"
    [[ $(snapshot_names dest/cut) == "mon tue" ]]
    same dest/cut@mon tank/web0@mon
    same dest/cut@tue tank/web0@tue
    ctl volume delete dest/cut --snapshots --yes
}

killed() {
    mkfifo "$tmp/pipe"
    launch recv sh -c "exec '$POOLCTL' recv dest/killed <'$tmp/pipe'"
    exec 4>"$tmp/pipe"
    head -c 30M "$tmp/full" >&4
    sleep 0.5
    kill "-$1" "$(pid_of recv)"
    wait_until 10 ended recv
    exec 4>&-
    rm "$tmp/pipe"
    is .state receiving volume show dest/killed
    wait_until 15 no_exports dest
    ctl recv dest/killed --resume <"$tmp/full"
    same dest/killed@tue tank/web0@tue
    ctl volume delete dest/killed --snapshots --yes
}

no_exports() {
    [[ $(json .exports pool show "$1") == 0 ]]
}

# The daemon goes while a stream comes.
daemon_killed() {
    mkfifo "$tmp/pipe"
    launch recv sh -c "exec '$POOLCTL' recv dest/lost <'$tmp/pipe'"
    exec 4>"$tmp/pipe"
    head -c 30M "$tmp/full" >&4
    sleep 0.5
    poold_kill9
    # More of it, which nobody takes: the receiver leaves.
    tail -c +31457281 "$tmp/full" >&4 2>/dev/null || true
    exec 4>&-
    rm "$tmp/pipe"
    wait_until 10 ended recv
    [[ $(exit_code_of recv) != 0 ]]
    poold_start
    ctl recv dest/lost --resume <"$tmp/full"
    same dest/lost@mon tank/web0@mon
    same dest/lost@tue tank/web0@tue
    ctl volume delete dest/lost --snapshots --yes
}

another_stream_is_no_continuation() {
    head -c 30M "$tmp/full" | fails_with 1 'ends before' ctl recv dest/cut
    fails_with 1 'not the stream' ctl recv dest/cut --resume <"$tmp/a"
    is .state receiving volume show dest/cut
    ctl recv dest/cut --resume <"$tmp/full"
    fails_with 2 'not being received' ctl recv dest/cut --resume <"$tmp/full"
    ctl volume delete dest/cut --snapshots --yes
}

# A difference that is given up: the volume is what it was.
given_up() {
    ctl send tank/web0@wed | ctl recv dest/back
    ctl send tank/web0@thu --since wed >"$tmp/long"
    head -c 15M "$tmp/long" | fails_with 1 'ends before' ctl recv dest/back
    ctl snapshot rollback dest/back@wed --yes
    is .state ok volume show dest/back
    same dest/back tank/web0@wed
    ctl recv dest/back <"$tmp/long"
    same dest/back@thu tank/web0@thu
    ctl volume delete dest/back --snapshots --yes
}

# ---- damage ----

# damaged OFFSET: a byte of the stream is another one.
damaged() {
    cp "$tmp/full" "$tmp/bad"
    printf '\xff' | dd of="$tmp/bad" bs=1 seek="$1" conv=notrunc status=none
    cmp -s "$tmp/full" "$tmp/bad" && printf '\x00' | dd of="$tmp/bad" bs=1 seek="$1" conv=notrunc status=none
    fails_with 1 'damaged|not right' ctl recv dest/bad <"$tmp/bad"
}

damage_is_refused() {
    damaged 60
    fails_with 4 'no volume' ctl volume show dest/bad
    damaged 30000000
    [[ -z $(snapshot_names dest/bad) ]]
    ctl volume delete dest/bad --yes
    cat "$tmp/full" "$tmp/full" >"$tmp/twice"
    fails_with 1 'behind the end' ctl recv dest/bad <"$tmp/twice"
    is .state receiving volume show dest/bad
    ctl volume delete dest/bad --snapshots --yes
    fails_with 1 'no stream' ctl recv dest/bad <"$tmp/noise"
}

# ---- terminals ----

on_a_terminal() {
    script -qec "$POOLCTL send tank/web0@thu >$tmp/tty.stream" "$tmp/tty.out" </dev/null >/dev/null
    grep -q 'tank/web0@.*\[#*\.*\] *[0-9]*%' "$tmp/tty.out"
    cmp "$tmp/tty.stream" "$tmp/a"
    fails_with 2 'terminal' script -qec "$POOLCTL send tank/web0@thu" /dev/null </dev/null >"$tmp/fails.err" || true
    grep -q 'nothing for a terminal' "$tmp/fails.err"
}

run_test "a snapshot arrives with those before it, its policy and its identity" everything_arrives
run_test "holes stay holes" holes_stay_holes
run_test "differences arrive on top of it" differences_arrive
run_test "what arrived can be sent on, and differences to it" goes_on_from_there
run_test "compression makes it smaller" compression_makes_it_smaller
run_test "the same snapshots give the same stream" same_again
run_test "differences to something else are refused, and nothing changes" wrong_bases_are_refused
run_test "a stream cut off in the first snapshot is gone on with, poold killed between" cut_off 30000000 ""
run_test "and one cut off in the second" cut_off $(($(stat -c %s "$tmp/full") - 1000000)) mon
run_test "the receiver is killed and gone on with" killed KILL
run_test "the receiver is interrupted and gone on with" killed INT
run_test "poold is killed under it" daemon_killed
run_test "another stream is no continuation" another_stream_is_no_continuation
run_test "a difference is given up by rolling back" given_up
run_test "damage is refused before that record changes anything" damage_is_refused
run_test "progress is shown on a terminal" on_a_terminal

# ---- images ----

imports() {
    qemu-img convert -f raw -O qcow2 "$tmp/image" "$tmp/image.qcow2"
    ctl volume import "$tmp/image.qcow2" tank/fromq --policy mirror2
    ctl volume import "$tmp/image" tank/fromr
    for volume in fromq fromr; do
        [[ $(sum_of tank/$volume) == "$(sha256sum <"$tmp/image")" ]]
        is .size_bytes $((33 << 20)) volume show tank/$volume
        is '.referenced_bytes < 10000000' true volume show tank/$volume
    done
    is .policy mirror2 volume show tank/fromq
}

exports() {
    ctl snapshot create tank/fromq@s
    ctl volume export tank/fromq@s "$tmp/out.qcow2" --format qcow2
    ctl volume export tank/fromq "$tmp/out.raw" --format raw
    qemu-img info --output=json "$tmp/out.qcow2" | jq -e '.format == "qcow2"'
    qemu-img compare -f raw -F qcow2 "$tmp/image" "$tmp/out.qcow2"
    cmp "$tmp/image" "$tmp/out.raw"
    (($(stat -c %b "$tmp/out.raw") * 512 < 10000000))
    fails_with 5 'exists' ctl volume export tank/fromq "$tmp/out.raw" --format raw
    ctl volume export tank/fromq "$tmp/out.raw" --format raw --force
    fails_with 2 'neither raw nor' ctl volume export tank/fromq "$tmp/x" --format vmdk
}

images_that_are_none() {
    fails_with 4 'cannot read' ctl volume import "$tmp/nosuch" tank/none
    fails_with 5 'exists' ctl volume import "$tmp/image" tank/fromr
    fails_with 1 'qemu-img' ctl volume import "$tmp/noise" tank/none --format qcow2
    fails_with 4 'no volume' ctl volume show tank/none
    qemu-img create -q -f qcow2 -b /etc/passwd -F raw "$tmp/spy"
    fails_with 6 'refers to another file' ctl volume import "$tmp/spy" tank/none
    ctl volume import "$tmp/spy" tank/none --format qcow2
    [[ ! -e $tmp/x.part ]]
}

image_progress() {
    script -qec "$POOLCTL volume import $tmp/noise tank/shown" "$tmp/tty.out" </dev/null >/dev/null
    grep -qE 'tank/shown \[#*\.*\] *[0-9]+%' "$tmp/tty.out"
}

nothing_is_left() {
    wait_until 15 no_exports dest
    is '[.exports[] | select(.address | test("poold.sock"))] | length' 0 status
    ! ls "$POOLD_SOCKET".* 2>/dev/null
}

truncate -s 33M "$tmp/image"
dd if="$tmp/noise" of="$tmp/image" bs=1M count=3 seek=7 conv=notrunc status=none
dd if="$tmp/noise" of="$tmp/image" bs=1M count=1 seek=32 conv=notrunc status=none
run_test "raw and qcow2 images become volumes" imports
run_test "volumes and snapshots become raw and qcow2 images" exports
run_test "what cannot be imported leaves nothing behind" images_that_are_none
run_test "importing shows its progress on a terminal" image_progress
run_test "no export and no socket is left" nothing_is_left
end_tests
