# Runs the bare-metal test guest (tests/vmm/guest) on poolvm. Sourced after functions.sh.
#
# Each VM has a name: its serial port is in $tmp/NAME.serial, what poolvm says in $tmp/NAME.log, its control socket at
# $tmp/NAME.control.
#
# shellcheck shell=bash disable=SC2154 # tmp is set by functions.sh

POOLVM=${POOLVM:-$BUILD/poolvm}

# requires_kvm: builds the guest; skips the file where no VM can run.
requires_kvm() {
    [[ -x $POOLVM ]] || skip_all "'$POOLVM' is not built"
    [[ -r /dev/kvm && -w /dev/kvm ]] || skip_all "there is no /dev/kvm that may be used"
    requires jq python3 objcopy
    tests/vmm/guest/build.sh "$tmp/guest.bin" >"$tmp/build.log" 2>&1 || skip_all "the test guest does not build"
    timeout -s KILL 20 "$POOLVM" --kernel "$tmp/guest.bin" --cmdline "probe" --mem 64M --serial none </dev/null >"$tmp/probe.log" 2>&1 ||
        skip_all "$(tail -n 1 "$tmp/probe.log")"
}

# vm_start NAME CMDLINE [OPTION...]: in the background.
vm_start() {
    local name=$1 cmdline=$2
    shift 2
    cleanup_fn vm_end "$name"
    launch "$name" run_vm "$name" --kernel "$tmp/guest.bin" --cmdline "$cmdline" "$@"
}

# run_vm NAME OPTION...: never returns. What the guest says is kept apart from what poolvm says.
run_vm() {
    local name=$1
    shift
    exec "$POOLVM" --control "$tmp/$name.control" "$@" </dev/null >>"$tmp/$name.serial"
}

# vm_end NAME: by SIGINT, which asks no guest.
vm_end() {
    running "$1" || return 0
    kill -INT "$(pid_of "$1")" 2>/dev/null || true # it may end by itself just now
    wait_until 5 ended "$1" || kill -KILL "$(pid_of "$1")" 2>/dev/null || true
}

# vm_call NAME METHOD [PARAMS]: the result of a control method, or its error and exit code 1.
vm_call() {
    python3 tests/vmm/call.py "$tmp/$1.control" "$2" "${3:-null}"
}

vm_said() {
    grep -qaE "$2" "$tmp/$1.serial"
}

vm_said_or_dead() {
    vm_said "$1" "$2" || vm_said "$1" '^(FAIL|T$)' || ended "$1"
}

# vm_wait NAME PATTERN SECONDS: until the guest has said it.
vm_wait() {
    wait_until "$3" vm_said_or_dead "$1" "$2" || true
    vm_said "$1" "$2" || {
        echo "the guest never said '$2'"
        tail -n 5 "$tmp/$1.serial"
        return 1
    }
}

# vm_passes NAME SECONDS: until the guest has ended by itself, all verified.
vm_passes() {
    vm_wait "$1" '^PASS' "$2" && wait_until 5 ended "$1" && [[ $(exit_code_of "$1") == 0 ]]
}

# vm_ios NAME: how many the guest has last told of.
vm_ios() {
    grep -a '^@ios' "$tmp/$1.serial" | tail -n 1 | cut -d' ' -f2
}
