#!/usr/bin/env bash
# Builds the bare-metal test guest: build.sh FILE
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# shellcheck disable=SC2054 # flags for the linker have commas
flags=(-std=gnu11 -O2 -Wall -Wextra -Werror -ffreestanding -fno-pic -no-pie -fno-stack-protector -fcf-protection=none
    -mno-red-zone -mno-avx -fno-tree-loop-distribute-patterns -fno-asynchronous-unwind-tables -nostdlib -static
    -Wl,--build-id=none -Wl,-z -Wl,max-page-size=4096 -Wl,--no-warn-rwx-segments)
${CC:-gcc} "${flags[@]}" -T "$here/guest.lds" -o "$work/guest.elf" "$here/start.S" "$here/main.c"
objcopy -O binary "$work/guest.elf" "$1"
