#!/usr/bin/env bash
# The offline check: finds nothing wrong where nothing is, and what is wrong where it is.
# shellcheck source=tests/it/functions.sh
. "$(dirname "$0")/functions.sh"
requires qemu-io python3
requires_poold

# io COMMAND...: on tank/web0.
io() {
    local command args=()
    for command in "$@"; do
        args+=(-c "$command")
    done
    timeout 60 qemu-io -f raw "nbd+unix:///?socket=$tmp/web0.nbd" "${args[@]}" >"$tmp/io"
    ! grep -qiE 'fail|error|mismatch' "$tmp/io"
}

# checked CODE [OPTION...]: the answer is in $tmp/check.json.
checked() {
    local want=$1 rc=0
    shift
    timeout 60 "$POOLCTL" --json check "${disks[@]}" "$@" >"$tmp/check.json" || rc=$?
    cat "$tmp/check.json"
    echo "exit code $rc, wanted $want"
    [[ $rc == "$want" ]]
}

told() {
    jq -e "$1" "$tmp/check.json"
}

make_pool 512M
ctl volume create tank/web0 --size 200M --policy mirror2
ctl volume create tank/plain --size 50M
ctl volume create tank/code --size 50M --policy ec:2+1
ctl export add tank/web0 --nbd "unix:$tmp/web0.nbd"
io 'write -P 1 0 30M'
ctl snapshot create tank/web0@a
io 'write -P 2 10M 10M' 'discard 5M 1M'
ctl clone tank/web0@a tank/copy
ctl snapshot create tank/web0@b
io 'write -P 3 12M 4M' 'write -P 4 100M 20M'
ctl snapshot delete tank/web0@a --yes
ctl export remove "unix:$tmp/web0.nbd"
for volume in plain code copy; do
    ctl export add "tank/$volume" --nbd "unix:$tmp/web0.nbd"
    io 'write -P 7 1M 3M'
    ctl export remove "unix:$tmp/web0.nbd"
done

in_use() {
    local rc=0
    ctl check "${disks[@]}" 2>"$tmp/err" || rc=$?
    cat "$tmp/err"
    [[ $rc == 5 ]] && grep -q 'in use' "$tmp/err"
}

after_kill9() {
    poold_kill9
    checked 0 --data
}

all_is_well() {
    poold_start
    poold_stop
    checked 0 --data
    told '.problems == [] and .volumes == 4 and .snapshots == 1 and .lineages == 3'
    told '.verified > 15000 and .nodes > 10 and .batches > 30 and .segments > 10'
    "$POOLCTL" check "${disks[@]}" | grep -qE ' 0 problems'
}

# One block of each disk, of volumes that have no copy of it.
damaged_data() {
    python3 - "${disks[@]}" <<'PY'
import sys
for path in sys.argv[1:]:
    with open(path, "r+b") as disk:
        data = disk.read()
        at = data.find(b"\x07" * 4096)
        while at >= 0 and at % 4096:
            at = data.find(b"\x07" * 4096, at + 4096 - at % 4096)
        if at >= 0:
            disk.seek(at + 100)
            disk.write(b"x")
PY
    checked 0
    checked 1 --data
    told '[.problems[] | select(.problem | test("checksum")) | .where | test("lineage [0-9]+, segment [0-9]+, block [0-9]+")] | all'
    told '.problems | length > 0 and length < 4'
}

# flip DISK MAGIC: a byte of the last block of the disk that begins with this.
flip() {
    python3 - "$1" "$2" <<'PY'
import sys
with open(sys.argv[1], "r+b") as disk:
    data = disk.read()
    magic = sys.argv[2].encode()
    found = [at for at in range(0, len(data), 4096) if data[at:at + len(magic)] == magic]
    for at in found:
        disk.seek(at + 40)
        disk.write(bytes([data[at + 40] ^ 1]))
    print(len(found), "blocks of", magic)
    sys.exit(not found)
PY
}

damaged_map() {
    local disk
    for disk in "${disks[@]}"; do
        flip "$disk" pmap || true
    done
    checked 1
    told '[.problems[].problem] | any(test("not what its pointer says"))'
}

no_pool() {
    local rc=0
    truncate -s 100M "$tmp/nothing"
    ctl check "$tmp/nothing" || rc=$?
    [[ $rc == 1 ]]
    rc=0
    ctl check "$tmp/nosuch" || rc=$?
    [[ $rc == 4 ]]
}

a_disk_is_missing() {
    local all=("${disks[@]}")
    disks=("${all[0]}" "${all[1]}")
    checked 1
    told '[.problems[].problem] | any(test("was not given"))'
}

run_test "disks in use are left alone" in_use
run_test "all agrees after kill -9" after_kill9
run_test "all agrees after an orderly end" all_is_well
run_test "damaged data is found where it is" damaged_data
run_test "a disk that is not given is missed" a_disk_is_missing
run_test "a damaged map is found" damaged_map
run_test "what is no pool is told from one" no_pool
end_tests
