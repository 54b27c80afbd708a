#!/usr/bin/env bash
# Snapshots, clones and rollback as an administrator and the clients of NBD and vhost-user-blk see them: under load, over
# kill -9, in any order, and all space comes back.
# shellcheck source=tests/it/functions.sh
. "$(dirname "$0")/functions.sh"
requires nbdinfo nbdcopy qemu-img qemu-io sha256sum
requires_poold

size=$((128 << 20))

# uri NAME: where serve exports a volume or snapshot.
uri() {
    echo "nbd+unix:///?socket=$tmp/$1.nbd"
}

# serve IMAGE [OPTION...]: exports tank/IMAGE at $tmp/IMAGE.nbd.
serve() {
    ctl export add "tank/$1" --nbd "unix:$tmp/$1.nbd" "${@:2}"
}

unserve() {
    ctl export remove "unix:$tmp/$1.nbd"
}

# volume NAME: of $size, served.
volume() {
    ctl volume create "tank/$1" --size "$size"
    serve "$1"
}

# io NAME COMMAND...: each by qemu-io; fails if one fails or data is not as it should be.
io() {
    local name=$1 command args=()
    shift
    for command in "$@"; do
        args+=(-c "$command")
    done
    timeout 60 qemu-io -f raw "${io_flags[@]}" "$(uri "$name")" "${args[@]}" | tee "$tmp/io"
    ! grep -qiE 'fail|error|mismatch' "$tmp/io"
}
io_flags=()

# reads NAME COMMAND...: the same, without write access.
reads() {
    local io_flags=(-r)
    io "$@"
}

# sum_of NAME: of all of its data.
sum_of() {
    timeout 60 nbdcopy "$(uri "$1")" - | sha256sum
}

# fails_with CODE PATTERN COMMAND...
fails_with() {
    local want=$1 pattern=$2 rc=0
    shift 2
    "$@" >"$tmp/fails.out" 2>&1 || rc=$?
    cat "$tmp/fails.out"
    echo "exit code $rc, wanted $want"
    [[ $rc == "$want" ]] && grep -qE -- "$pattern" "$tmp/fails.out"
}

# is FILTER WANT WORD...: what jq makes of poolctl's JSON.
is() {
    local filter=$1 want=$2 got
    shift 2
    got=$(ctl --json "$@" | jq -r "$filter")
    echo "$filter of '$*' is '$got', wanted '$want'"
    [[ $got == "$want" ]]
}

bench() {
    timeout 120 "$BUILD/vhost-bench" "$@"
}

# A Python that has libnbd's module.
python=
for candidate in python3 /usr/bin/python3; do
    "$candidate" -c 'import nbd' 2>/dev/null && python=$candidate && break
done

make_pool 1G
volume web0

# ---- under load ----

# The snapshot does not change while its volume is written, poold is killed, and all is well for the writer.
stays_as_it_was() {
    local before
    make_volume busy "$size"
    launch writer "$BUILD/vhost-bench" --socket "$tmp/busy.vhost" --rw randwrite --depth 16 --seconds 6 --verify \
        --reconnect
    sleep 1
    ctl snapshot create tank/busy@one
    serve busy@one
    before=$(sum_of busy@one)
    sleep 1
    ctl snapshot create tank/busy@two
    [[ $(sum_of busy@one) == "$before" ]]
    poold_kill9
    poold_start
    [[ $(sum_of busy@one) == "$before" ]]
    serve busy@two
    [[ $(sum_of busy@two) != "$before" ]]
    wait_until 60 gone "$(pid_of writer)"
    cat "$tmp/writer.log"
    [[ $(exit_code_of writer) == 0 ]]
    [[ $(sum_of busy@one) == "$before" ]]
    unserve busy@one
    unserve busy@two
    ctl export remove "$tmp/busy.vhost"
    ctl volume delete tank/busy --snapshots --yes
}

# Every block that the table of vhost-bench tells, read through the snapshot's own export.
holds_every_write() {
    make_volume exact 32M
    bench --socket "$tmp/exact.vhost" --rw randwrite --depth 8 --count 8000 --verify --fresh --table "$tmp/then"
    ctl snapshot create tank/exact@then
    cp "$tmp/then" "$tmp/now"
    bench --socket "$tmp/exact.vhost" --rw randwrite --depth 8 --count 8000 --verify --table "$tmp/now"
    ctl export add tank/exact@then --vhost-user "$tmp/then.vhost"
    for _ in before after; do
        bench --socket "$tmp/then.vhost" --verify-only --table "$tmp/then"
        bench --socket "$tmp/exact.vhost" --verify-only --table "$tmp/now"
        fails_with 1 . bench --socket "$tmp/then.vhost" --verify-only --table "$tmp/now"
        poold_kill9
        poold_start
    done
    fails_with 1 . bench --socket "$tmp/then.vhost" --rw randwrite --count 1
    ctl export remove "$tmp/then.vhost"
    ctl export remove "$tmp/exact.vhost"
    ctl volume delete tank/exact --snapshots --yes
}

# A client writes block i of one volume, then of the other, and so on: in no pair of snapshots is the second volume ahead,
# nor the first by more than one block, and neither has a hole.
same_instant() {
    volume first
    volume second
    cat >"$tmp/pairs.py" <<'END'
import nbd, sys
MIB = 1 << 20
def connect(path):
    h = nbd.NBD()
    h.connect_unix(path)
    return h
def count(path):
    h = connect(path)
    n = next((i for i in range(h.get_size() // 4096) if not any(h.pread(4096, i * 4096))), h.get_size() // 4096)
    for at in range(n * 4096 // MIB * MIB, h.get_size(), MIB):
        assert not any(h.pread(MIB, at)[max(n * 4096 - at, 0):]), "a hole before " + path
    return n
if sys.argv[1] == "write":
    a, b = connect(sys.argv[2]), connect(sys.argv[3])
    for i in range(1, 1 + a.get_size() // 4096):
        for h in a, b:
            h.pwrite(bytes([1 + i % 255]) * 4096, (i - 1) * 4096)
else:
    a, b = count(sys.argv[2]), count(sys.argv[3])
    print(a, b)
    sys.exit(not (0 < b <= a <= b + 1))
END
    launch pairs "$python" "$tmp/pairs.py" write "$tmp/first.nbd" "$tmp/second.nbd"
    for i in 1 2 3; do
        sleep 0.3
        ctl snapshot create "tank/first@$i" "tank/second@$i"
    done
    alive "$(pid_of pairs)"
    end_launched pairs
    for i in 1 2 3; do
        serve "first@$i"
        serve "second@$i"
        "$python" "$tmp/pairs.py" check "$tmp/first@$i.nbd" "$tmp/second@$i.nbd"
        unserve "first@$i"
        unserve "second@$i"
    done
    unserve first
    unserve second
    ctl volume delete tank/first --snapshots --yes
    ctl volume delete tank/second --snapshots --yes
}

run_test "a snapshot stays as it was, whatever is written and killed" stays_as_it_was
run_test "a snapshot holds every write before it and none after" holds_every_write
if [[ -n $python ]]; then
    run_test "snapshots of several volumes are of one instant" same_instant
else
    skip_test "snapshots of several volumes are of one instant" "python3-libnbd is not installed"
fi

# ---- clones ----

clones_are_on_their_own() {
    io web0 'write -P 1 0 8M' 'write -P 2 8M 8M'
    ctl snapshot create tank/web0@v1
    io web0 'write -P 3 4M 1M'
    ctl clone tank/web0@v1 tank/copy
    ctl clone tank/web0 tank/live
    serve web0@v1
    serve copy
    serve live
    reads copy 'read -P 1 0 8M' 'read -P 2 8M 8M'
    reads live 'read -P 1 0 4M' 'read -P 3 4M 1M' 'read -P 2 8M 8M'
    io copy 'write -P 4 0 1M' 'discard 8M 1M'
    ctl clone tank/copy tank/copy2
    serve copy2
    io copy2 'write -P 5 1M 1M'
    is .origin tank/web0@v1 volume show tank/copy
    is .origin null volume show tank/web0
    poold_kill9
    poold_start
    reads web0@v1 'read -P 1 0 8M' 'read -P 2 8M 8M'
    reads web0 'read -P 1 0 4M' 'read -P 3 4M 1M' 'read -P 2 8M 8M'
    reads copy 'read -P 4 0 1M' 'read -P 1 1M 7M' 'read -P 0 8M 1M' 'read -P 2 9M 7M'
    reads copy2 'read -P 4 0 1M' 'read -P 5 1M 1M' 'read -P 1 2M 6M' 'read -P 0 8M 1M'
}

told_where_space_is() {
    is .referenced_bytes $((16 << 20)) snapshot show tank/web0@v1
    is '.unique_bytes + .shared_bytes - .referenced_bytes' 0 volume show tank/copy
    is .unique_bytes $((1 << 20)) volume show tank/copy2
    is '.[] | select(.name == "v1") | .unique_bytes' 0 snapshot list tank/web0
    is length 1 snapshot list tank
    is length 0 snapshot list tank/copy
    is '[.[].name] | join(" ")' "copy copy2 live web0" volume list tank
    is '.[] | select(.name == "web0") | .snapshots' 1 volume list
    is .snapshots 1 pool show tank
    is .volumes 4 pool show tank
    ctl snapshot list
    ctl snapshot show tank/web0@v1
    ctl volume show tank/copy
    ctl pool show tank
}

# The origin of clones goes, and they stay.
outlive_their_origin() {
    unserve web0@v1
    unserve copy
    ctl snapshot delete tank/web0@v1 --yes
    ctl volume delete tank/copy --yes
    reads copy2 'read -P 4 0 1M' 'read -P 5 1M 1M' 'read -P 1 2M 6M' 'read -P 0 8M 1M' 'read -P 2 9M 7M'
    is .origin null volume show tank/copy2
    unserve copy2
    unserve live
    ctl volume delete tank/copy2 --yes
    ctl volume delete tank/live --yes
}

run_test "clones, and clones of clones, do not change each other" clones_are_on_their_own
run_test "unique, shared and referenced bytes are told" told_where_space_is
run_test "clones outlive what they were made from" outlive_their_origin

# ---- rollback ----

rolled_back() {
    io web0 'write -P 6 0 16M'
    ctl snapshot create tank/web0@six
    io web0 'write -P 7 0 8M'
    ctl snapshot create tank/web0@seven
    ctl volume resize tank/web0 +64M
    io web0 'write -P 8 130M 1M'
    fails_with 5 'web0.nbd.*remove the export first' ctl snapshot rollback tank/web0@six --yes
    unserve web0
    ctl snapshot rollback tank/web0@six --yes
    serve web0
    is .size_bytes "$size" volume show tank/web0
    is .origin tank/web0@six volume show tank/web0
    reads web0 'read -P 6 0 16M'
    io web0 'write -P 9 0 1M'
    poold_kill9
    poold_start
    reads web0 'read -P 9 0 1M' 'read -P 6 1M 15M'
    unserve web0
    ctl snapshot rollback tank/web0@seven --yes
    ctl snapshot delete tank/web0@seven --yes
    serve web0
    reads web0 'read -P 7 0 8M' 'read -P 6 8M 8M'
}

run_test "a volume is rolled back, and forth" rolled_back

# ---- exports ----

read_only() {
    serve web0@six
    is '.[] | select(.volume == "tank/web0@six") | .read_only' true export list
    nbdinfo --is read-only "$(uri web0@six)"
    fails_with 1 . qemu-io -f raw "$(uri web0@six)" -c 'write 0 4k'
    reads web0@six 'read -P 6 0 16M'
    ctl export add tank/web0@six --nbd "unix:$tmp/another.nbd" --read-only
    nbdinfo --size "$(uri another)"
    fails_with 2 'has 2 exports' ctl export remove tank/web0@six
    ctl export remove "unix:$tmp/another.nbd"
}

renamed_while_exported() {
    ctl snapshot rename tank/web0@six sechs
    is '[.[] | .volume] | sort | join(" ")' 'tank/web0 tank/web0@sechs' export list
    ctl volume rename tank/web0 web1
    is '[.[] | .volume] | sort | join(" ")' 'tank/web1 tank/web1@sechs' export list
    poold_kill9
    poold_start
    is '[.[] | .volume] | sort | join(" ")' 'tank/web1 tank/web1@sechs' export list
    is '[.[] | .state] | unique | join(" ")' open export list
    reads web0@six 'read -P 6 0 16M'
    ctl snapshot rename tank/web1@sechs tank/web1@six
    ctl volume rename tank/web1 web0
}

not_deleted_while_exported() {
    fails_with 5 'web0@six.*remove the export first' ctl snapshot delete tank/web0@six --yes
    unserve web0
    fails_with 5 'web0@six.*remove the export first' ctl volume delete tank/web0 --snapshots --yes
    serve web0
    ctl export remove tank/web0@six
    is length 1 export list
}

run_test "a snapshot is exported read-only" read_only
run_test "what is exported is renamed, over a restart too" renamed_while_exported
run_test "what is exported is not deleted" not_deleted_while_exported

# ---- what changed ----

# diff FILTER WANT WORD...: what jq makes of snapshot diff.
diff_is() {
    is "$1" "$2" snapshot diff "${@:3}"
}

ranges='[.ranges[] | "\(.offset / 1048576)+\(.length / 1048576)\(if .data then "d" else "h" end)"] | join(" ")'

# map IMAGE SNAPSHOT: offset, length and flags, by NBD.
map_since() {
    nbdinfo "--map=poold:changed-since:$2" "$(uri "$1")" | awk '{ print $1, $2, $3 }'
}

tells_changes() {
    volume diff
    io diff 'write -P 1 0 16M'
    ctl snapshot create tank/diff@mon
    diff_is "$ranges" '' tank/diff@mon
    io diff 'write -P 2 4M 1M' 'discard 8M 1M' 'write -P 3 32M 1M'
    ctl snapshot create tank/diff@tue
    io diff 'write -P 4 0 1M'
    for _ in before after; do
        diff_is "$ranges" '4+1d 8+1h 32+1d' tank/diff@mon tank/diff@tue
        diff_is "$ranges" '0+1d 4+1d 8+1h 32+1d' tank/diff@mon
        diff_is "$ranges" '0+1d' tank/diff@tue tank/diff
        diff_is '"\(.data_bytes) \(.hole_bytes) \(.size_bytes)"' "2097152 1048576 $size" tank/diff@mon tank/diff@tue
        poold_kill9
        poold_start
    done
    ctl snapshot diff tank/diff@mon | tee "$tmp/diff"
    grep -qE '^ *8388608 +1048576  hole$' "$tmp/diff"
    grep -qE '^changed: 3.* of data and 1.* of holes' "$tmp/diff"
    ctl clone tank/diff@tue tank/branch
    diff_is "$ranges" '4+1d 8+1h 32+1d' tank/diff@mon tank/branch
    ctl volume delete tank/branch --yes
    fails_with 1 'have nothing in common' ctl snapshot diff tank/diff@mon tank/web0
    fails_with 4 'no snapshot' ctl snapshot diff tank/diff@nosuch
    fails_with 2 'not the name of a snapshot' ctl snapshot diff tank/diff
}

tells_changes_by_nbd() {
    map_since diff tue | tee "$tmp/map"
    [[ $(cat "$tmp/map") == "0 1048576 1
1048576 $((size - 1048576)) 0" ]]
    serve diff@tue
    map_since diff@tue mon | awk '$3 == 1 { print $1 / 1048576, $2 / 1048576 }' | tee "$tmp/map"
    [[ $(cat "$tmp/map") == $'4 1\n8 1\n32 1' ]]
    # As qemu does with its own bitmaps, what is dirty is not "data".
    qemu-img map --output=json --image-opts \
        "driver=nbd,server.type=unix,server.path=$tmp/diff@tue.nbd,x-dirty-bitmap=poold:changed-since:mon" |
        jq -r '[.[] | select(.data | not) | .start / 1048576] | join(" ")' | tee "$tmp/map"
    [[ $(cat "$tmp/map") == "4 8 32" ]]
    nbdinfo --json "$(uri diff)" | jq -r '[.exports[0].contexts[]] | sort | join(" ")' | tee "$tmp/contexts"
    [[ $(cat "$tmp/contexts") == "base:allocation poold:changed-since:mon poold:changed-since:tue" ]]
    fails_with 1 'not supported|context' nbdinfo --map=poold:changed-since:nosuch "$(uri diff)"
    fails_with 1 'not supported|context' nbdinfo --map=poold:changed-since:tank/web0@six "$(uri diff)"
}

# More than a page of control and more than one answer of NBD have: both tell the same, nothing twice and in order.
tells_many_changes() {
    ctl export remove "unix:$tmp/diff.nbd"
    ctl export add tank/diff --vhost-user "$tmp/diff.vhost"
    bench --socket "$tmp/diff.vhost" --rw randwrite --depth 16 --count 9000
    ctl export remove "$tmp/diff.vhost"
    serve diff
    ctl --json snapshot diff tank/diff@tue | jq -r '.ranges[] | select(.data) | "\(.offset) \(.length)"' >"$tmp/by-control"
    map_since diff tue | awk '$3 == 1 { print $1, $2 }' >"$tmp/by-nbd"
    wc -l "$tmp/by-control"
    (($(wc -l <"$tmp/by-control") > 4096))
    # NBD's map may be cut where one answer ends.
    for by in by-control by-nbd; do
        awk '{ if ($1 == end) { end += $2 } else { if (NR > 1) print start, end; start = $1; end = $1 + $2 } }
            END { print start, end }' "$tmp/$by" >"$tmp/$by.joined"
    done
    sort -n -c "$tmp/by-control.joined"
    cmp "$tmp/by-control.joined" "$tmp/by-nbd.joined"
}

# The recipe of poolctl(8): a full backup and an increment are the newer snapshot.
backs_up_increments() {
    nbdcopy "$(uri diff@tue)" "$tmp/backup"
    ctl snapshot create tank/diff@wed
    serve diff@wed
    "$python" "$tmp/recipe.py" "$tmp/diff@wed.nbd" poold:changed-since:tue "$tmp/backup"
    [[ $(sum_of diff@wed) == "$(sha256sum <"$tmp/backup")" ]]
    [[ $(sum_of diff@wed) != "$(sum_of diff@tue)" ]]
}

# A client that compares with a snapshot keeps it.
compared_with_is_not_deleted() {
    cat >"$tmp/hold.py" <<'END'
import nbd, sys, time
h = nbd.NBD()
h.add_meta_context("base:allocation")
h.add_meta_context("poold:changed-since:mon")
h.add_meta_context("poold:changed-since:tue")
h.connect_unix(sys.argv[1])
seen = {}
h.block_status(1 << 20, 0, lambda context, off, extents, err: seen.__setitem__(context, extents))
print(seen, flush=True)
assert seen["base:allocation"] == [1 << 20, 0] and seen["poold:changed-since:tue"] == [1 << 20, 1], seen
assert len(seen) == 3
time.sleep(60)
END
    launch hold "$python" "$tmp/hold.py" "$tmp/diff.nbd"
    wait_until 10 grep -q allocation "$tmp/hold.log"
    fails_with 5 'in use' ctl snapshot delete tank/diff@mon --yes
    end_launched hold
    ctl snapshot delete tank/diff@mon --yes
    fails_with 5 'exported' ctl snapshot delete tank/diff@tue --yes
}

run_test "what changed since a snapshot is told" tells_changes
run_test "what changed is a context of NBD" tells_changes_by_nbd
run_test "many changes are told in full" tells_many_changes
if [[ -n $python ]]; then
    # From the manual, so that it is right.
    awk '/the increment$/ { on = 1; next } /^END$/ { on = 0 } on' tools/man/poolctl.8 >"$tmp/recipe.py"
    run_test "an increment by the manual's recipe makes the newer snapshot" backs_up_increments
    run_test "what a client compares with is not deleted" compared_with_is_not_deleted
else
    skip_test "an increment by the manual's recipe makes the newer snapshot" "python3-libnbd is not installed"
    skip_test "what a client compares with is not deleted" "python3-libnbd is not installed"
fi
for image in diff diff@tue diff@wed; do
    unserve "$image"
done
ctl volume delete tank/diff --snapshots --yes

# ---- names and errors ----

refused() {
    fails_with 5 exists ctl snapshot create tank/web0@six
    fails_with 4 'no volume' ctl snapshot create tank/nosuch@a
    fails_with 2 'not the name of a snapshot' ctl snapshot create tank/web0
    fails_with 2 'not the name of a snapshot' ctl snapshot create tank/web0@
    fails_with 2 'not the name of a snapshot' ctl snapshot create tank/web0@a@b
    fails_with 2 'not the name of a snapshot' ctl snapshot create "tank/web0@$(printf 'x%.0s' {1..65})"
    fails_with 2 'named twice' ctl snapshot create tank/web0@a tank/web0@b
    fails_with 1 'not in pool' ctl snapshot create tank/web0@a other/web0@a
    fails_with 4 'no snapshot' ctl snapshot show tank/web0@nosuch
    fails_with 4 'no snapshot' ctl snapshot delete tank/web0@nosuch --yes
    fails_with 4 'no snapshot' ctl snapshot rollback tank/web0@nosuch --yes
    fails_with 4 'no snapshot' ctl clone tank/web0@nosuch tank/x
    fails_with 4 'no snapshot' ctl export add tank/web0@nosuch --nbd "unix:$tmp/x.nbd"
    fails_with 4 'no volume' ctl snapshot list tank/nosuch
    fails_with 5 exists ctl clone tank/web0@six tank/web0
    fails_with 2 'not the name of a volume' ctl clone tank/web0@six tank/x@y
    fails_with 1 'not in pool' ctl clone tank/web0@six other/x
    fails_with 2 'stays with its volume' ctl snapshot rename tank/web0@six tank/other@six
    fails_with 6 'cannot be resized: make a clone' ctl volume resize tank/web0@six 1G
    fails_with 2 'not the name of a volume' ctl volume show tank/web0@six
    fails_with 2 'not the name of a volume' ctl volume delete tank/web0@six --yes
    fails_with 2 'not the name of a volume' ctl volume create tank/web0@x --size 1G
    unserve web0
    fails_with 5 "has snapshots .*--snapshots" ctl volume delete tank/web0 --yes
    is '[.[].snapshot] | join(" ")' tank/web0@six snapshot list
    fails_with 6 '--yes' ctl snapshot delete tank/web0@six
}

# All of several snapshots are made, or none.
all_or_none() {
    ctl volume create tank/x --size 1M
    fails_with 5 exists ctl snapshot create tank/x@six tank/web0@six
    is length 0 snapshot list tank/x
    ctl snapshot create tank/x@seven tank/web0@seven
    is length 1 snapshot list tank/x
    ctl volume delete tank/x --snapshots --yes
}

run_test "what cannot be is refused, and says why" refused
run_test "several snapshots are made together or not at all" all_or_none

# ---- space ----

reclaimed() {
    is .reclaiming_images 0 pool show tank
}

free_bytes() {
    json .free_bytes pool show tank
}

# Half a volume written, three snapshots with writes between, everything discarded, the snapshots deleted in random order
# with poold killed meanwhile: within a minute all but a hundredth is free.
all_space_comes_back() {
    local begin=${EPOCHREALTIME/./} empty
    ctl volume delete tank/web0 --snapshots --yes
    wait_until 30 reclaimed
    empty=$(free_bytes)
    make_volume half $((2 * size))
    bench --socket "$tmp/half.vhost" --rw write --bs 1m --depth 4 --count 128 --range $size
    for i in 1 2 3; do
        ctl snapshot create "tank/half@$i"
        bench --socket "$tmp/half.vhost" --rw randwrite --depth 16 --count 4000 --range $size --seed "$i"
    done
    (($(free_bytes) < empty - size))
    ctl export remove tank/half
    serve half
    io half "discard 0 $((2 * size))"
    begin=${EPOCHREALTIME/./}
    shuf -e 1 2 3 >"$tmp/order"
    while read -r i; do
        ctl snapshot delete "tank/half@$i" --yes
        poold_kill9
        poold_start
    done <"$tmp/order"
    wait_until 60 reclaimed
    wait_until 60 eval "((\$(free_bytes) * 100 >= $empty * 99))"
    echo "all of it in $(((${EPOCHREALTIME/./} - begin) / 1000)) ms" | comment
    is .referenced_bytes 0 volume show tank/half
}

run_test "all space comes back, in whatever order snapshots go" all_space_comes_back
run_test "SIGTERM ends poold with exit code 0" poold_stop
end_tests
