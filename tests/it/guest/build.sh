#!/usr/bin/env bash
# Builds what a test guest boots: a stock Debian kernel and two initial RAM file systems.
#
#   build.sh DIR        ->  DIR/vmlinuz, DIR/base.cpio, DIR/fio.cpio
#
# The kernel is the newest installed cloud kernel, else the package that linux-image-cloud-amd64
# stands for, downloaded and unpacked below DIR (nothing is installed). base.cpio holds busybox, the
# file system tools, hammer and the few modules; fio.cpio holds fio with its many libraries and
# is loaded only by tests that run it. Both are plain cpio archives, so a test appends its own
# (see guest.sh) and the kernel unpacks them one after the other.
#
# Nothing is done when the results are newer than every file they are made of.
set -euo pipefail
shopt -s nullglob

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
tools=(mkfs.ext4 e2fsck mkfs.xfs xfs_repair fstrim blkdiscard)
modules=(virtio_pci virtio_blk xfs virtio_net virtio-rng virtio_balloon button evdev kvm-amd tun)

die() {
    echo "guest/build.sh: $*" >&2
    exit 1
}

# up_to_date DIR: every result exists and no source is newer.
up_to_date() {
    local result source
    for result in "$1"/vmlinuz "$1"/base.cpio "$1"/fio.cpio; do
        [[ -s $result ]] || return 1
        for source in "$here"/*; do
            [[ ! $source -nt $result ]] || return 1
        done
    done
}

# download_kernel DIR: unpacks the current cloud kernel package into DIR/kernel.
download_kernel() (
    mkdir -p "$1/kernel"
    cd "$1"
    package=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null |
        awk '$1 == "Depends:" && $2 ~ /^linux-image-/ { print $2; exit }')
    [[ -n $package ]] || die "linux-image-cloud-amd64 is unknown: run apt-get update"
    files=("$package"_*.deb)
    if ((${#files[@]} == 0)); then
        apt-get -q download "$package" >download.log 2>&1 ||
            die "cannot download '$package': $(tail -n 1 download.log)"
        files=("$package"_*.deb)
    fi
    dpkg-deb -x "${files[0]}" kernel
)

# find_kernel DIR: sets kernel_root and kernel_version.
find_kernel() {
    local images root
    for root in "" "$1/kernel"; do
        images=("$root"/boot/vmlinuz-*-cloud-amd64)
        if ((${#images[@]} > 0)); then
            kernel_root=$root
            kernel_version=$(printf '%s\n' "${images[@]##*/vmlinuz-}" | sort -V | tail -n 1)
            return
        fi
    done
    return 1
}

# module_files DEPFILE NAME...: the .ko files of the modules and all they need.
module_files() {
    local dep_file=$1
    shift
    awk -v wanted="$*" '
        function base(path) { sub(/.*\//, "", path); sub(/\.ko.*/, "", path); return path }
        function visit(path,    i, n, list) {
            if (path in seen) return
            seen[path] = 1
            n = split(deps[path], list, " ")
            for (i = 1; i <= n; i++) visit(list[i])
            print path
        }
        { path = $1; sub(/:$/, "", path); $1 = ""; deps[path] = $0; by_name[base(path)] = path }
        END { n = split(wanted, names, " "); for (i = 1; i <= n; i++) if (names[i] in by_name) visit(by_name[names[i]]) }
    ' "$dep_file"
}

# copy_modules ROOT: the wanted modules with a modules.dep of their own.
copy_modules() {
    local from=$kernel_root/lib/modules/$kernel_version to=$1/lib/modules/$kernel_version file
    if [[ ! -s $from/modules.dep ]]; then
        busybox depmod -b "$kernel_root" "$kernel_version"
    fi
    while read -r file; do
        install -D -m 0644 "$from/$file" "$to/$file"
    done < <(module_files "$from/modules.dep" "${modules[@]}")
    busybox depmod -b "$1" "$kernel_version"
}

# make_tree ROOT: the folders, with /bin, /sbin, /lib and /lib64 below /usr as Debian has them.
make_tree() {
    local name
    mkdir -p "$1"/{dev,proc,sys,tmp,mnt,etc,usr/{bin,sbin,lib,lib64}}
    for name in bin sbin lib lib64; do
        ln -s "usr/$name" "$1/$name"
    done
    : >"$1/etc/mtab"
}

# copy_program ROOT NAME: a program and the libraries it is linked with.
copy_program() {
    local path library
    path=$(command -v "$2") || die "'$2' is missing"
    install -D -m 0755 "$path" "$1/usr/bin/$2"
    while read -r library; do
        [[ -e $1$library ]] || install -D -m 0755 "$library" "$1$library"
    done < <(ldd "$path" | grep -o '/[^ ]*')
}

# pack ROOT ARCHIVE
pack() {
    (cd "$1" && find . -mindepth 1 | LC_ALL=C sort |
        cpio --quiet --create --format=newc --owner=0:0) >"$2"
}

# build_base DIR ROOT
build_base() {
    local name
    make_tree "$2"
    install -m 0755 "$(command -v busybox)" "$2/usr/bin/busybox"
    for name in $(busybox --list); do
        [[ -e $2/usr/bin/$name ]] || ln -s busybox "$2/usr/bin/$name"
    done
    for name in "${tools[@]}"; do
        rm -f "$2/usr/bin/$name"
        copy_program "$2" "$name"
    done
    ${CC:-cc} -std=gnu11 -D_GNU_SOURCE -O2 -Wall -Wextra -Werror -static -pthread -o "$2/usr/bin/hammer" "$here/hammer.c"
    strip "$2/usr/bin/hammer"
    install -m 0755 "$here/init" "$2/init"
    install -m 0644 "$here/lib.sh" "$2/lib/guest.sh"
    copy_modules "$2"
    pack "$2" "$1/base.cpio"
}

# build_fio DIR ROOT
build_fio() {
    make_tree "$2"
    copy_program "$2" fio
    pack "$2" "$1/fio.cpio"
}

main() {
    [[ $# -eq 1 ]] || die "usage: build.sh DIR"
    mkdir -p "$1"
    local dir
    dir=$(cd "$1" && pwd)
    exec 9>"$dir/lock" && flock 9
    up_to_date "$dir" && return
    export PATH=$PATH:/usr/sbin:/sbin
    if ! find_kernel "$dir"; then
        download_kernel "$dir" || exit
        find_kernel "$dir" || die "the downloaded package holds no kernel"
    fi
    work=$(mktemp -d "$dir/work.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    install -m 0644 "$kernel_root/boot/vmlinuz-$kernel_version" "$dir/vmlinuz"
    build_base "$dir" "$work/base"
    build_fio "$dir" "$work/fio"
}

main "$@"
