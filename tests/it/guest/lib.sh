# shellcheck shell=dash
# Helpers of the scripts that run inside a test guest; the counterpart of tests/it/guest.sh.
#
# Lines that begin with '@' are for the host:
#   @mark NAME       the guest has reached this point
#   @end NAME RC     step NAME has ended with this exit code
#   @value NAME X    the value of something the host asked for

# mark NAME
mark() {
    echo "@mark $1"
}

# value NAME X
value() {
    echo "@value $1 $2"
}

# step NAME COMMAND...: runs the command and reports its exit code; never stops the script.
# Not in a subshell, so that the command may be "wait PID".
step() {
    _name=$1
    shift
    _rc=0
    "$@" || _rc=$?
    echo "@end $_name $_rc"
}

# hear WORD: waits until the host says WORD (guest_tell).
hear() {
    while read -r _line; do
        [ "$_line" != "$1" ] || return 0
    done
    return 1
}

# wait_disk NAME: waits until /dev/NAME is there, at most 60 seconds.
wait_disk() {
    _left=600
    while [ ! -b "/dev/$1" ]; do
        _left=$((_left - 1))
        [ "$_left" -gt 0 ] || return 1
        sleep 0.1
    done
}

# no_io_errors: the kernel has reported no failed or hung I/O since it booted.
no_io_errors() {
    ! dmesg | grep -iE 'i/o error|blocked for more than|buffer i/o|critical (medium|target|space)|remounting|corrupt|call trace'
}
