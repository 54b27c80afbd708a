#!/usr/bin/env bash
# A stock Debian kernel on poolvm: inside a QEMU guest with emulated AMD-V, beside a poold that serves its disk.
#
# The outer guest has what the inner one needs in its initrd. What the inner guest says on its serial port is passed on
# with a '|' in front. It boots with noxsave, since the emulated AMD-V does not tell KVM of XSETBV, and the inner kernel
# wonders about the size of its state.
here=$(dirname "$0")
# shellcheck source=tests/it/functions.sh
. "$here/functions.sh"
# shellcheck source=tests/it/guest.sh
. "$here/guest.sh"
requires_guest
requires lz4
[[ -x $BUILD/poolvm ]] || skip_all "'$BUILD/poolvm' is not built"

# copy_with_libraries PROGRAM: into the outer initrd.
copy_with_libraries() {
    local library
    install -D -m 0755 "$1" "$tmp/initrd.d/usr/bin/$(basename "$1")"
    while read -r library; do
        install -D -m 0755 "$library" "$tmp/initrd.d/usr${library#/usr}"
    done < <(ldd "$1" | grep -o '/[^ ]*')
}

# unpack_kernel: the ELF file inside the bzImage, which can be entered by PVH.
unpack_kernel() {
    python3 - "$guest_dir/vmlinuz" <<'END' | lz4 -dc >"$tmp/initrd.d/vmlinux" 2>/dev/null || true
import struct, sys
image = open(sys.argv[1], "rb").read()
setup = (image[0x1f1] or 4) * 512 + 512
offset, length = struct.unpack_from("<II", image, 0x248)
sys.stdout.buffer.write(image[setup + offset:setup + offset + length - 4])
END
    [[ -s $tmp/initrd.d/vmlinux ]]
}

# inner_script: what the inner guest runs.
inner_script() {
    cat <<'END'
. /lib/guest.sh
modprobe virtio-rng
modprobe virtio_balloon
modprobe button
modprobe evdev
value cpus "$(nproc)"
value rng "$(cat /sys/class/misc/hw_random/rng_current 2>/dev/null)"
value bytes "$(head -c 32 /dev/hwrng | wc -c)"
value pvh "$(dmesg | grep -c 'Booting paravirtualized kernel on PVH\|PVH: ')"
case $(cat /proc/cmdline) in
*short*) exit 0 ;;
esac
wait_disk vda || exit 1
value queues "$(ls /sys/block/vda/mq | wc -l)"
hammer /dev/vda 64 7 &
hammer=$!
sleep 10
kill $hammer
step hammer wait $hammer
step mkfs mkfs.ext4 -q /dev/vda
step mount mount /dev/vda /mnt
step copy sh -c 'cp -a /usr /mnt/ && sync'
step umount umount /mnt
step fsck e2fsck -fn /dev/vda
step clean no_io_errors
mark ready
head -c 24 /dev/input/event0 >/dev/null
mark button
END
}

cat >"$tmp/script" <<'END'
. /lib/guest.sh
modprobe kvm-amd
mark kvm
poold --socket /tmp/poold.sock --state /tmp/state >/tmp/poold.log 2>&1 &
export POOLD_SOCKET=/tmp/poold.sock
while ! poolctl status >/dev/null 2>&1; do sleep 0.2; done
poolctl pool create tank ram:400M
poolctl volume create tank/inner --size 256M
poolctl export add tank/inner --vhost-user /tmp/inner.sock --queues 2

# inner NAME OPTION...: runs a VM; what it says is passed on.
inner() {
    _name=$1
    shift
    poolvm --initrd /inner.cpio --mem 300M --rng --balloon --control /tmp/control "$@" \
        </dev/null 2>/tmp/poolvm.log >/tmp/inner.log &
    _pid=$!
    tail -f /tmp/inner.log | while read -r line; do echo "|$_name $line"; done &
    _tail=$!
    wait $_pid
    _rc=$?
    sleep 1
    kill $_tail
    cat /tmp/poolvm.log
    return $_rc
}

: >/tmp/inner.log
inner linux --kernel /vmlinuz --cmdline "console=ttyS0 quiet panic=-1 noxsave" --cpus 2 --disk /tmp/inner.sock,queues=2 &
linux=$!
while ! grep -q '@mark ready' /tmp/inner.log && kill -0 $linux; do sleep 0.5; done
killall -TERM poolvm
step linux wait $linux
step pvh inner pvh --kernel /vmlinux --cmdline "console=ttyS0 panic=-1 short"
poweroff -f
END

mkdir -p "$tmp/initrd.d"
for program in poold poolctl poolvm; do
    copy_with_libraries "$BUILD/$program"
done
cp "$guest_dir/vmlinuz" "$tmp/initrd.d/vmlinuz"
unpack_kernel
mkdir "$tmp/inner"
inner_script >"$tmp/inner/test.sh"
{ cat "$guest_dir/base.cpio" && (cd "$tmp/inner" && echo test.sh | cpio --quiet -o -H newc); } >"$tmp/initrd.d/inner.cpio"

inner_said() {
    grep -qaE "^\|$1" "$tmp/guest.log"
}

# inner_step NAME: a step of the inner guest has ended well.
inner_step() {
    inner_said "linux @end $1 0"
}

GUEST_MIB=2048 GUEST_CPU=EPYC,+svm guest_start "$tmp/script"
run_test "the outer guest has KVM" guest_mark kvm 120
run_test "a stock kernel boots, works and powers off by the power button" guest_step linux 300
run_test "it has two processors" inner_said 'linux @value cpus 2'
run_test "it has two queues" inner_said 'linux @value queues 2'
run_test "it has a random number generator" inner_said 'linux @value rng virtio_rng'
run_test "its disk holds what 32 threads wrote" inner_step hammer
run_test "ext4 on its disk is whole" inner_step fsck
run_test "its kernel reports no I/O error" inner_step clean
run_test "it hears the power button" inner_said 'linux @mark button'
run_test "the same kernel boots by PVH" guest_step pvh 120
run_test "and runs to user space" inner_said 'pvh @exit 0'
end_tests
