# Starts Linux guests for the integration tests and talks to them. Sourced after functions.sh.
#
# A guest is QEMU without KVM, with a stock Debian kernel (guest/build.sh) and one vhost-user-blk
# disk for each socket. It runs the given script as /test.sh and powers itself off. What the script
# prints is in $tmp/guest.log, what its kernel prints in $tmp/console.log; words of guest_tell
# reach it through its second serial port. guest/lib.sh is the other end.
#
#   GUEST_FIO=1   load fio
#   GUEST_CPUS=2  GUEST_MIB=512  GUEST_QUEUES=1  GUEST_CPU=Nehalem
#
# shellcheck shell=bash disable=SC2154 # tmp is set by functions.sh

guest_dir=${GUEST_DIR:-build/guest}

# requires_guest: builds the guest's files; skips the test file where that is not possible.
requires_guest() {
    requires qemu-system-x86_64 busybox cpio mkfs.ext4 mkfs.xfs fio
    tests/it/guest/build.sh "$guest_dir" >"$tmp/build.log" 2>&1 ||
        skip_all "no test guest: $(tail -n 1 "$tmp/build.log")"
}

# make_initrd SCRIPT
make_initrd() {
    mkdir -p "$tmp/initrd.d"
    cp "$1" "$tmp/initrd.d/test.sh"
    {
        cat "$guest_dir/base.cpio"
        [[ -z ${GUEST_FIO:-} ]] || cat "$guest_dir/fio.cpio"
        (cd "$tmp/initrd.d" && find . -mindepth 1 | cpio --quiet -o -H newc)
    } >"$tmp/initrd"
}

# guest_options SOCKET...: sets options, the QEMU command line.
guest_options() {
    local mib=${GUEST_MIB:-512} cpus=${GUEST_CPUS:-2} queues=${GUEST_QUEUES:-1} socket n=0
    options=(
        -nodefaults -no-user-config -display none -no-reboot
        -machine "q35,memory-backend=mem" -accel "tcg,thread=multi" -cpu "${GUEST_CPU:-Nehalem}" -smp "$cpus"
        -m "$mib" -object "memory-backend-memfd,id=mem,share=on,size=${mib}M"
        -kernel "$guest_dir/vmlinuz" -initrd "$tmp/initrd"
        -append "console=ttyS0 quiet loglevel=4 panic=-1 mitigations=off"
        -chardev "file,id=console,path=$tmp/console.log" -serial chardev:console
        -chardev "pipe,id=script,path=$tmp/guest" -serial chardev:script
    )
    for socket in "$@"; do
        options+=(
            -chardev "socket,id=blk$n,path=$socket,reconnect=1"
            -device "vhost-user-blk-pci,chardev=blk$n,num-queues=$queues"
        )
        n=$((n + 1))
    done
}

# guest_start SCRIPT SOCKET...: returns at once.
guest_start() {
    local options=()
    make_initrd "$1"
    shift
    guest_options "$@"
    rm -f "$tmp"/guest.{in,out,log}
    mkfifo "$tmp/guest.in"
    : >"$tmp/guest.log"
    ln -s guest.log "$tmp/guest.out"
    cleanup_fn end_launched qemu
    launch qemu qemu-system-x86_64 "${options[@]}"
}

guest_said() {
    grep -qaE "^@$1" "$tmp/guest.log"
}

guest_said_or_dead() {
    guest_said "$1" || ! alive "$(pid_of qemu)"
}

# guest_wait PATTERN SECONDS: until the guest prints "@PATTERN". A guest that is late is ended, so
# that tests after this one fail at once.
guest_wait() {
    wait_until "$2" guest_said_or_dead "$1" || end_launched qemu
    guest_said "$1" || {
        echo "the guest never said '$1'"
        return 1
    }
}

# guest_mark NAME SECONDS: until the guest has reached this point.
guest_mark() {
    guest_wait "mark $1$" "$2"
}

# guest_step NAME SECONDS: until the step has ended; fails if the step did.
guest_step() {
    guest_wait "end $1 [0-9]+$" "$2"
    guest_said "end $1 0$"
}

# guest_value NAME: the value last reported.
guest_value() {
    sed -n "s/^@value $1 //p" "$tmp/guest.log" | tail -n 1
}

# guest_tell WORD: opens the pipe for both ways, so that it never waits for a guest that is gone.
guest_tell() {
    echo "$1" 1<>"$tmp/guest.in"
}

# guest_ends SECONDS: until the guest has powered off after its script ended well.
guest_ends() {
    wait_until "$1" gone "$(pid_of qemu)"
    guest_said "exit 0$"
}
