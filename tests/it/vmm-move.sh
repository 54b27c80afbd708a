#!/usr/bin/env bash
# A VM moves between two poolvms, is saved and restored, while its guest verifies every block, page and register it has.
#
#   ROUNDS=20   migrations of each kind
here=$(dirname "$0")
# shellcheck source=tests/it/functions.sh
. "$here/functions.sh"
# shellcheck source=tests/it/vmm.sh
. "$here/vmm.sh"
requires_kvm
make_pool 4G
rounds=${ROUNDS:-20}
port=$((20000 + RANDOM % 20000))

# one_move VM FROM TO ADDRESS OPTION...: process FROM hands the VM to a new process TO. The guest's words stay in one file.
one_move() {
    local vm=$1 from=$2 to=$3 address=$4
    shift 4
    : >"$tmp/$to.serial"
    launch "$to" run_vm "$to" --incoming "$address" "$@"
    cleanup_fn vm_end "$to"
    vm_call "$from" migrate "{\"to\": \"$address\"}" >/dev/null
    wait_until 20 ended "$from"
    [[ $(exit_code_of "$from") == 0 ]] || { tail -n 3 "$tmp/$from.log" "$tmp/$to.log" && return 1; }
    sed -n 's/.*stood still for \(.*\) ms/\1/p' "$tmp/$from.log" >>"$tmp/$vm.pauses"
    cat "$tmp/$from.serial" >>"$tmp/$vm.words"
}

# moves NAME ADDRESS OPTION...: $rounds moves of a busy guest, then it comes to its end and all was right.
moves() {
    local vm=$1 address=$2 i
    shift 2
    make_volume "$vm" 64M
    set -- "$@" --disk "$tmp/$vm.vhost"
    vm_start "$vm-0" "ios=$((rounds * 15000)) depth=16 pages=2000 seed=$RANDOM" "$@"
    vm_wait "$vm-0" '^first' 10
    for ((i = 0; i < rounds; i++)); do
        sleep "0.$((RANDOM % 2))$((RANDOM % 10))"
        one_move "$vm" "$vm-$i" "$vm-$((i + 1))" "$address" "$@"
    done
    vm_passes "$vm-$rounds" $((120 + 2 * rounds))
    sort -n "$tmp/$vm.pauses" | awk -v vm="$vm" '{ v[NR] = $1 } END {
        print vm ": " NR " moves; the guest stood still for " v[int((NR + 1) / 2)] " ms (median), " v[NR] " ms at most" }' |
        tee "$tmp/$vm.median" | comment
}

hands_over_memory() {
    moves local "unix:$tmp/local.move" --mem 64M
}

copies_memory() {
    moves tcp "tcp:127.0.0.1:$port" --mem 64M
}

pause_is_short() {
    awk '{ for (i = 1; i <= NF; i++) if ($i == "for") exit !($(i + 1) <= 100) }' "$tmp/local.median"
}

# A destination that is another machine says so, and the VM goes on where it was.
refused() {
    make_volume refused 64M
    vm_start refused "ios=40000 depth=4" --mem 64M --disk "$tmp/refused.vhost"
    vm_wait refused '^first' 10
    launch other run_vm other --incoming "unix:$tmp/refused.move" --mem 32M --disk "$tmp/refused.vhost"
    vm_call refused migrate "{\"to\": \"unix:$tmp/refused.move\"}" >/dev/null
    wait_until 10 ended other
    grep -q 'another machine than this one' "$tmp/other.log"
    wait_until 10 eval 'vm_call refused status | jq -e ".move.state == \"failed\"" >/dev/null'
    vm_call refused status | jq -r .move.error | grep 'the destination refuses: the VM is another machine'
    vm_passes refused 60
}

nobody_there() {
    make_volume alone 64M
    vm_start alone "ios=40000 depth=4" --mem 64M --disk "$tmp/alone.vhost"
    vm_wait alone '^first' 10
    vm_call alone migrate "{\"to\": \"unix:$tmp/nobody\"}" >/dev/null
    wait_until 10 eval 'vm_call alone status | jq -e ".move.state == \"failed\"" >/dev/null'
    vm_passes alone 60
}

# settled SOURCE DESTINATION: the move has come to an end, one way or the other.
settled() {
    if running "$1"; then
        vm_call "$1" status | jq -e '.move.state | IN("failed", "unknown", "done")' >/dev/null
    else
        ended "$2" || grep -q 'runs here now' "$tmp/$2.log" || [[ -S $tmp/move ]]
    fi
}

# kill_during_move WHO N: a busy VM, whose move to a new process is disturbed at a random moment by killing WHO: source,
# destination or poold.
kill_during_move() {
    local who=$1 victim=$1-$2-$1 source=$1-$2-source destination=$1-$2-destination disk=$tmp/$1-$2.vhost pid
    [[ $who != poold ]] || victim=poold
    rm -f "$tmp/move"
    make_volume "$1-$2" 64M >/dev/null
    vm_start "$source" "ios=20000 depth=8 pages=500" --mem 64M --disk "$disk"
    vm_wait "$source" '^first' 10
    launch "$destination" run_vm "$destination" --incoming "unix:$tmp/move" --mem 64M --disk "$disk"
    cleanup_fn vm_end "$destination"
    wait_until 5 test -S "$tmp/move"
    pid=$(pid_of "$victim")
    vm_call "$source" migrate "{\"to\": \"unix:$tmp/move\"}" >/dev/null
    # A move takes a few milliseconds; so no process is started for the wait.
    read -r -t "0.00$((RANDOM % 10))" <>"$tmp/never" || true
    ended "$victim" || kill -KILL "$pid" 2>/dev/null || true
    [[ $who != poold ]] || { wait_until 10 ended poold && poold_start; }
    wait_until 60 settled "$source" "$destination"
}

# one_is_left WHO N: the VM runs in one process and comes to its end there, or died with the one that was killed.
one_is_left() {
    local who=$1 source=$1-$2-source destination=$1-$2-destination
    if grep -q 'runs here now' "$tmp/$destination.log"; then
        ended "$source" || vm_call "$source" status | jq -e '.move.state == "unknown"' >/dev/null ||
            wait_until 5 ended "$source"
        moved=$((moved + 1))
        [[ $who == destination ]] || vm_passes "$destination" 60
    elif [[ $who == source ]]; then
        died=$((died + 1))
        [[ -S $tmp/move ]] || wait_until 10 ended "$destination"
    else
        # It may have had the disk for a moment before it died: then nobody has the VM any more.
        vm_call "$source" take_back >/dev/null 2>&1 || true
        if vm_passes "$source" 60; then
            stayed=$((stayed + 1))
        else
            grep 'another VM has written it since' "$tmp/$source.log" && wait_until 5 ended "$source"
            died=$((died + 1))
        fi
    fi
    vm_end "$source"
    vm_end "$destination"
}

mkfifo "$tmp/never"
killed_during_moves() {
    local who=$1 i stayed=0 moved=0 died=0
    for ((i = 0; i < 10; i++)); do
        kill_during_move "$who" "$i"
        one_is_left "$who" "$i"
    done
    echo "$who killed: the VM stayed $stayed times, moved $moved times, died with it $died times" | comment
}

# save_file NAME FILE
save_file() {
    vm_call "$1" save "{\"path\": \"$2\"}" >/dev/null
    wait_until 20 eval "vm_call $1 status | jq -e '.move.state == \"done\"' >/dev/null"
}

# The VM is stopped, saved, ended; then goes on from the file, on the same volume.
save_and_restore() {
    make_volume saved 64M
    vm_start saved "ios=60000 depth=16 pages=2000" --mem 64M --disk "$tmp/saved.vhost"
    vm_wait saved '^@ios' 20
    vm_call saved stop >/dev/null
    save_file saved "$tmp/saved.state"
    vm_end saved
    vm_start restored "" --restore "$tmp/saved.state" --mem 64M --disk "$tmp/saved.vhost"
    vm_passes restored 60
}

# Saving while it runs does not harm the one that runs.
save_live() {
    local i
    make_volume live 64M
    vm_start live "ios=100000 depth=16 pages=2000" --mem 64M --disk "$tmp/live.vhost"
    vm_wait live '^first' 10
    for ((i = 0; i < 10; i++)); do
        save_file live "$tmp/live.state"
    done
    vm_passes live 60
}

# Bytes all over the file, one after the other flipped; and cut short everywhere.
damaged_file() {
    local size i at
    size=$(stat -c %s "$tmp/saved.state")
    for ((i = 0; i < 60; i++)); do
        at=$((i < 20 ? i * 7 : (RANDOM * 32768 + RANDOM) % size))
        cp "$tmp/saved.state" "$tmp/damaged.state"
        python3 -c 'import sys; f = open(sys.argv[1], "r+b"); at = int(sys.argv[2]); f.seek(at); b = f.read(1)[0]
f.seek(at); f.write(bytes([b ^ 1 << at % 8]))' "$tmp/damaged.state" "$at"
        ((i % 3 > 0)) || truncate -s "$at" "$tmp/damaged.state"
        "$POOLVM" --restore "$tmp/damaged.state" --mem 64M --disk "$tmp/saved.vhost" --serial none \
            >"$tmp/damaged.out" 2>&1 </dev/null && return 1
        grep -qE "state is damaged|out of order|cut short|another machine" "$tmp/damaged.out" || {
            cat "$tmp/damaged.out" && return 1
        }
    done
}

run_test "$rounds moves over a Unix socket, memory handed over" hands_over_memory
run_test "the median pause is at most 100 ms" pause_is_short
run_test "$rounds moves over TCP, memory copied" copies_memory
run_test "a destination that does not fit is refused and the VM goes on" refused
run_test "nobody at the other end: the VM goes on" nobody_there
run_test "the destination killed at any moment" killed_during_moves destination
run_test "the source killed at any moment" killed_during_moves source
run_test "poold killed at any moment" killed_during_moves poold
run_test "saved, ended, restored" save_and_restore
run_test "saved ten times while it runs" save_live
run_test "damaged files are refused" damaged_file
end_tests
