#!/usr/bin/env bash
# The state folder over restarts and trouble: nothing is forgotten, nothing is done by halves, and
# what cannot be brought up says why and comes back by 'poolctl retry'.
# shellcheck source=tests/it/functions.sh
. "$(dirname "$0")/functions.sh"
requires_poold

state=$tmp/state/state.json

# fails_with CODE PATTERN COMMAND...
fails_with() {
    local want=$1 pattern=$2 rc=0
    shift 2
    "$@" >"$tmp/fails.out" 2>&1 || rc=$?
    cat "$tmp/fails.out"
    echo "exit code $rc, wanted $want"
    [[ $rc == "$want" ]] && grep -qE "$pattern" "$tmp/fails.out"
}

# is FILTER WANT WORD...: what jq makes of poolctl's JSON.
is() {
    local filter=$1 want=$2 got
    shift 2
    got=$(json "$filter" "$@")
    echo "$filter of '$*' is '$got', wanted '$want'"
    [[ $got == "$want" ]]
}

# edit FILTER: state.json, while poold is not running.
edit() {
    jq "$1" "$state" >"$tmp/edited"
    cp "$tmp/edited" "$state"
}

cleanup_fn end_launched poold
poold_start
make_disks 4 1G
ctl pool create tank "${disks[@]:0:3}" >/dev/null
make_volume web0 1G >/dev/null

# ---- trouble at the start ----

down_and_retried() {
    poold_stop
    mv "${disks[1]}" "$tmp/away"
    poold_start
    is '.pools[0].state' down status
    is '.exports[0].state' down status
    fails_with 1 "${disks[1]}" ctl retry
    fails_with 1 "pool 'tank' is down" ctl volume list tank
    mv "$tmp/away" "${disks[1]}"
    ctl retry
    is '.down' 0 status
    is '.exports[0].state' open status
}

stays_known_over_restarts() {
    poold_stop
    mv "${disks[1]}" "$tmp/away"
    poold_start && poold_kill9 && poold_start && poold_stop
    mv "$tmp/away" "${disks[1]}"
    poold_start
    is '.down' 0 status
}

disks_moved() {
    poold_stop
    mv "${disks[1]}" "$tmp/moved"
    poold_start
    is '.pools[0].state' down status
    ctl pool import "${disks[0]}" "$tmp/moved" "${disks[2]}"
    is '.exports[0].state' open status
    poold_kill9
    poold_start
    is '.down' 0 status
    poold_stop
    mv "$tmp/moved" "${disks[1]}"
    poold_start
    ctl pool import "${disks[@]:0:3}"
}

export_alone_is_down() {
    poold_stop
    mkdir "$tmp/in-the-way"
    edit ".exports[0].address = \"$tmp/in-the-way\""
    poold_start
    is '.pools[0].state' open status
    is '.exports[0].state' down status
    fails_with 1 "in-the-way" ctl retry
    rmdir "$tmp/in-the-way"
    ctl retry
    is '.exports[0].state' open status
    poold_stop
    edit ".exports[0].address = \"$tmp/web0.vhost\""
    poold_start
}

run_test "a pool with a missing disk is down, and comes back" down_and_retried
run_test "a pool that is down is not forgotten" stays_known_over_restarts
run_test "a pool whose disk moved is imported again, with its exports" disks_moved
run_test "an export that cannot start is down alone, and comes back" export_alone_is_down

# ---- crashes between two writes ----

renamed_by_halves() {
    poold_stop
    edit '.exports[0].volume = "older"'
    poold_start
    is '.[0].volume' tank/web0 export list
    is '.[0].state' open export list
}

added_by_halves() {
    poold_stop
    edit ".pools[0].disks += [\"${disks[3]}\"]"
    poold_start
    is '.pools[0].state' open status
    is '.disk_count' 3 pool show tank
    ctl pool add tank "${disks[3]}"
    is '.disk_count' 4 pool show tank
}

run_test "an export whose volume was renamed is found" renamed_by_halves
run_test "a disk that was recorded but not added is left out" added_by_halves

# ---- the folder itself ----

cannot_be_written() {
    mkdir "$state.new"
    fails_with 1 'state.json' ctl export add tank/web0 --vhost-user "$tmp/ro.vhost" --read-only
    fails_with 1 'state.json' ctl export remove tank/web0
    fails_with 1 'state.json' ctl pool export tank --force
    fails_with 1 'state.json' ctl pool create other ram:256M
    rmdir "$state.new"
    is length 1 pool list
    is length 1 export list
    is '.[0].state' open export list
    [[ ! -e $tmp/ro.vhost ]]
}

second_daemon() {
    fails_with 1 'another poold \(pid [0-9]+\)' timeout 10 "$POOLD" --socket "$tmp/2.sock" --state "$tmp/state"
}

broken_file() {
    poold_stop
    cp "$state" "$tmp/good"
    truncate -s -5 "$state"
    cp "$state" "$tmp/broken"
    fails_with 1 'state.json' timeout 10 "$POOLD" --socket "$POOLD_SOCKET" --state "$tmp/state"
    cmp "$state" "$tmp/broken"
    cp "$tmp/good" "$state"
    edit '.version = 2'
    fails_with 1 'version 2' timeout 10 "$POOLD" --socket "$POOLD_SOCKET" --state "$tmp/state"
    cp "$tmp/good" "$state"
    poold_start
}

run_test "what cannot be recorded is not done" cannot_be_written
run_test "a second poold on the folder is refused" second_daemon
run_test "a file it cannot read is refused and left alone" broken_file

# ---- exports ----

one_writer() {
    fails_with 5 'for writing' ctl export add tank/web0 --vhost-user "$tmp/second.vhost"
    ctl export add tank/web0 --vhost-user "$tmp/ro1.vhost" --read-only
    ctl export add tank/web0 --vhost-user "$tmp/ro2.vhost" --read-only
    fails_with 2 'exports; name one' ctl export remove tank/web0
    ctl export remove "$tmp/ro1.vhost"
    ctl export remove "$tmp/ro2.vhost"
}

rename_with_export() {
    ctl volume rename tank/web0 web1
    is '.[0].volume' tank/web1 export list
    poold_kill9
    poold_start
    is '.[0].volume' tank/web1 export list
    ctl volume rename tank/web1 tank/web0
}

in_use() {
    fails_with 5 'exports' ctl pool export tank
    fails_with 5 'exports' ctl pool destroy tank --yes
    fails_with 5 'exported' ctl volume delete tank/web0 --yes
    is '.[0].state' open export list
}

export_takes_exports_along() {
    ctl pool export tank --force
    is length 0 pool list
    is length 0 export list
    [[ $(jq -c '[.pools, .exports]' "$state") == '[[],[]]' ]]
    ctl pool import "${disks[@]}"
    is length 0 export list
}

run_test "a volume has one writable export" one_writer
run_test "an export follows its volume's name" rename_with_export
run_test "exports keep pool and volume from going" in_use
run_test "a pool exported by force takes its exports along" export_takes_exports_along

# ---- several threads ----

on_cores() {
    poold_stop
    POOLD_FLAGS='--cores 0,1' poold_start
    is .loops 2 status
    make_volume a 1G
    make_volume b 1G
    ctl volume resize tank/a +1G
    is '[.[].home] | unique | length' 2 volume list
    ctl export remove tank/a
    ctl volume delete tank/a --yes
    ctl stat
    poold_stop
    poold_start
}

options_of_a_file() {
    poold_stop
    echo "{\"socket\": \"$tmp/other.sock\", \"map_cache\": \"8M\"}" >"$tmp/config.json"
    POOLD_FLAGS="--config $tmp/config.json" poold_start
    poold_stop
    echo '{"sockets": 1}' >"$tmp/config.json"
    fails_with 2 "unknown key 'sockets'" "$POOLD" --config "$tmp/config.json"
    poold_start
}

if (($(nproc) > 1)); then
    run_test "volumes live on several threads" on_cores
else
    skip_test "volumes live on several threads" "one core"
fi
run_test "options come from a file too" options_of_a_file
run_test "SIGTERM ends it with exit code 0" poold_stop
end_tests
