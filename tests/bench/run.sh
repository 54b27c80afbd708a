#!/usr/bin/env bash
# Measures poold beside its peers, driven by fio: `make bench` and `make bench-scale`.
#
#   run.sh compare|scale
#
#   QUICK=1                  in 3 minutes
#   BUILD=DIR                the build folder (default build); results go to BUILD/bench
#   PROGRAMS=DIR             where poold and poolctl are (default BUILD/release)
#   BENCH_ROUNDS=N           rounds (3; 2 if quick)
#   BENCH_GROUPS="memory disk nbd"
#   BENCH_VOLUME_MIB=N       size of the volumes
#   BENCH_DISK_DIR=DIR       a folder on the real disk (default BUILD/bench)
#   BENCH_PRIORITY=rt        server and client get their cores before everybody else: for a machine with other users, who
#                            will hardly get to run meanwhile; not where the real disk takes part
#   BENCH_PRIORITY=rt-all    there too: then servers that use Linux AIO suffer, whose writes are finished by kernel threads
#
# The server runs on the second core, the clients on the first.
set -euo pipefail
cd "$(dirname "$0")/../.."
BUILD=${BUILD:-build}
PROGRAMS=${PROGRAMS:-$BUILD/release}
export BUILD PROGRAMS PYTHONDONTWRITEBYTECODE=1

for program in fio qemu-storage-daemon qemu-nbd qemu-img nbdkit nbdcopy python3 taskset chrt \
    "$PROGRAMS/poold" "$PROGRAMS/poolctl"; do
    command -v "$program" >/dev/null || {
        echo "bench: '$program' is missing; make deps installs what Debian has" >&2
        exit 1
    }
done

exec python3 tests/bench/main.py "${1:-compare}"
