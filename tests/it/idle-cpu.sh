#!/usr/bin/env bash
# An idle daemon with an attached idle guest uses next to no CPU.
here=$(dirname "$0")
# shellcheck source=tests/it/functions.sh
. "$here/functions.sh"
# shellcheck source=tests/it/guest.sh
. "$here/guest.sh"
requires_guest

seconds=${IDLE_SECONDS:-5}
limit_us=$((seconds * 5000)) # 0.5 %

cat >"$tmp/script" <<'END'
. /lib/guest.sh
wait_disk vda || exit 1
step write dd if=/dev/zero of=/dev/vda bs=1M count=32 conv=fsync
mark idle
hear end
step read dd if=/dev/vda of=/dev/null bs=1M count=32
END

# cpu_us: what all threads of poold have used so far.
cpu_us() {
    cat "/proc/$(pid_of poold)"/task/*/schedstat | awk '{ ns += $1 } END { printf "%d\n", ns / 1000 }'
}

# uses_little: within the first of three periods that is quiet enough.
uses_little() {
    local before used try
    for try in 1 2 3; do
        before=$(cpu_us)
        sleep "$seconds"
        used=$(($(cpu_us) - before))
        echo "period $try: $used us of CPU in $seconds s, at most $limit_us allowed"
        ((used > limit_us)) || return 0
    done
    return 1
}

guest_idles() {
    guest_mark idle 60
    guest_step write 1
    uses_little
}

guest_wakes() {
    guest_tell end
    guest_step read 30
}

make_pool 2G
run_test "idle without a guest" uses_little
make_volume quiet 1G --queues 2
GUEST_QUEUES=2 guest_start "$tmp/script" "$tmp/quiet.vhost"
run_test "idle with an attached idle guest" guest_idles
run_test "the guest's next I/O is served" guest_wakes
run_test "the guest ends by itself" guest_ends 20
end_tests
