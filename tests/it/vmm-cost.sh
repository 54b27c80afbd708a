#!/usr/bin/env bash
# What a VM costs: memory beyond its own, time from the start to its first I/O; and how it is confined.
here=$(dirname "$0")
# shellcheck source=tests/it/functions.sh
. "$here/functions.sh"
# shellcheck source=tests/it/vmm.sh
. "$here/vmm.sh"
requires_kvm
make_pool 1G
make_volume disk 64M

# overhead_kib PID: resident memory that is not the guest's.
overhead_kib() {
    awk '/^[0-9a-f]+-[0-9a-f]+ / { guest = /memfd:guest-ram/ } /^Rss:/ && !guest { sum += $2 } END { print sum }' \
        "/proc/$1/smaps"
}

memory_overhead() {
    local kib
    vm_start busy "ios=0 depth=16 pages=8000" --mem 128M --disk "$tmp/disk.vhost" --rng --balloon
    vm_wait busy '^@ios' 30
    kib=$(overhead_kib "$(pid_of busy)")
    echo "beyond the guest's memory: $kib KiB" | comment
    ((kib <= 5120))
}

confined() {
    local task
    for task in /proc/"$(pid_of busy)"/task/*; do
        grep -qE '^Seccomp:\s*2$' "$task/status" && grep -qE '^NoNewPrivs:\s*1$' "$task/status"
    done
    vm_end busy
}

# The best of 20: from exec to the word of a guest whose first read has completed.
boot_time() {
    local i start us word best=999999
    for ((i = 0; i < 20; i++)); do
        start=${EPOCHREALTIME/./}
        read -r word < <(exec "$POOLVM" --kernel "$tmp/guest.bin" --cmdline "boots=1" --mem 64M \
            --disk "$tmp/disk.vhost" </dev/null 2>/dev/null)
        us=$((${EPOCHREALTIME/./} - start))
        wait $! && [[ $word == first ]]
        ((us >= best)) || best=$us
    done
    echo "start to first I/O: $best us (wanted: 30000, where nothing else runs)" | comment
}

run_test "at most 5 MiB beyond the guest's memory" memory_overhead
run_test "few system calls, no new privileges" confined
run_test "20 guests boot to their first I/O" boot_time
end_tests
