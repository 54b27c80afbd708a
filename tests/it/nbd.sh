#!/usr/bin/env bash
# Volumes served by NBD, to clients that we did not write: libnbd's tools, QEMU's, fio; plain and with TLS.
# shellcheck source=tests/it/functions.sh
. "$(dirname "$0")/functions.sh"
requires nbdinfo nbdcopy qemu-img qemu-io fio
requires_poold

size=$((256 << 20))

# A Python that has libnbd's module; nbdsh takes the first one it meets, which may not be Debian's.
python=
for candidate in python3 /usr/bin/python3; do
    "$candidate" -c 'import nbd' 2>/dev/null && python=$candidate && break
done

# uri NAME: of a volume's socket in $tmp.
uri() {
    echo "nbd+unix:///$1?socket=$tmp/$1.nbd"
}

# nbd_volume NAME [EXPORT OPTION...]: in tank, exported at $tmp/NAME.nbd.
nbd_volume() {
    local name=$1
    shift
    ctl volume create "tank/$name" --size "$size"
    ctl export add "tank/$name" --nbd "unix:$tmp/$name.nbd" "$@"
}

# sh URI CODE...: pieces of Python with a connected handle h.
sh() {
    local uri=$1 code=(-c 'h.set_uri_allow_local_file(True)' -c 'h.add_meta_context("base:allocation")') piece
    shift
    code+=(-c "h.connect_uri('$uri')")
    for piece in "$@"; do
        code+=(-c "$piece")
    done
    timeout 120 "$python" -m nbd "${code[@]}"
}

# with_python NAME COMMAND...: a test that needs libnbd's module.
with_python() {
    if [[ -n $python ]]; then
        run_test "$@"
    else
        skip_test "$1" "python3-libnbd is not installed"
    fi
}

fails() {
    ! "$@"
}

cleanup_fn end_launched poold
make_pool 2G
nbd_volume web0

# ---- what is told ----

tells() {
    nbdinfo "$(uri web0)" | tee "$tmp/info"
    grep -qE "$1" "$tmp/info"
}

lists_itself() {
    nbdinfo --list "nbd+unix:///?socket=$tmp/web0.nbd" | grep -q 'export="web0"'
}

refuses_other_names() {
    fails nbdinfo "nbd+unix:///web1?socket=$tmp/web0.nbd"
}

takes_all_capabilities() {
    local can
    for can in cache df fast-zero flush fua multi-conn trim zero; do
        nbdinfo --can "$can" "$(uri web0)"
    done
    fails nbdinfo --is read-only "$(uri web0)"
}

run_test "the size is told" tells "export-size: $size"
run_test "the block sizes are told" tells 'block_size_maximum: 33554432'
run_test "the export is listed" lists_itself
run_test "the empty name means it too" nbdinfo --size "nbd+unix:///?socket=$tmp/web0.nbd"
run_test "another name is refused" refuses_other_names
run_test "all that NBD can do is offered" takes_all_capabilities
run_test "the socket is its owner's only" eval "[[ \$(stat -c %a '$tmp/web0.nbd') == 600 ]]"

# ---- data ----

# a_disk FILE: with a file system on it, so that there are holes and data of all sizes.
a_disk() {
    truncate -s "$size" "$1"
    mkfs.ext4 -q -F -d tests "$1"
}

nbdcopy_round_trip() {
    nbdcopy "$tmp/disk" "$(uri web0)"
    nbdcopy "$(uri web0)" "$tmp/copy"
    cmp "$tmp/disk" "$tmp/copy"
    e2fsck -fn "$tmp/copy"
}

qemu_convert_round_trip() {
    qemu-img convert -n -f raw -O raw "$tmp/disk" "$(uri web0)"
    qemu-img compare -f raw -F raw "$tmp/disk" "$(uri web0)"
    qemu-img convert -f raw -O qcow2 "$(uri web0)" "$tmp/copy.qcow2"
    qemu-img compare -f raw -F qcow2 "$tmp/disk" "$tmp/copy.qcow2"
}

# Every block that is told as a hole is one of zeroes; there are holes; and what holds space is about what was written.
maps_holes() {
    local holes
    qemu-img map -f raw --output=json "$(uri web0)" >"$tmp/map"
    holes=$(jq '[.[] | select(.zero) | .length] | add' "$tmp/map")
    echo "$holes bytes of holes"
    ((holes > size / 2 && holes < size))
    nbdinfo --map --totals "$(uri web0)"
}

qemu_io_patterns() {
    qemu-io -f raw "$(uri web0)" -c 'write -P 1 0 1M' -c 'write -f -P 2 512 512' -c 'write -z 64k 64k' \
        -c 'write -z -u 128k 64k' -c 'discard 192k 64k' -c 'flush' -c 'read -P 1 0 512' -c 'read -P 2 512 512' \
        -c 'read -P 1 1k 63k' -c 'read -P 0 64k 192k' -c 'read -P 1 256k 768k' | tee "$tmp/out"
    fails grep -qiE 'fail|error|mismatch' "$tmp/out"
}

# With unmap, zeroes make a hole; without, they hold space.
zeroes_hold_space_or_not() {
    qemu-io -f raw "$(uri web0)" -c 'write -P 1 0 1M' -c 'write -z 0 64k' -c 'write -z -u 64k 64k'
    nbdinfo --map "$(uri web0)" | head -n 3 | tee "$tmp/map"
    [[ $(awk 'NR == 1 { print $2, $3 }' "$tmp/map") == "65536 0" ]]
    [[ $(awk 'NR == 2 { print $2, $3 }' "$tmp/map") == "65536 3" ]]
}

fio_verify() {
    timeout 300 fio --name=verify --ioengine=nbd --uri="$(uri web0)" --rw=randrw --bsrange="$1" --iodepth=32 \
        --size="$size" --io_size=64M --verify=crc32c --verify_fatal=1 --verify_state_save=0 \
        --randrepeat=0
}

if command -v mkfs.ext4 >/dev/null; then
    a_disk "$tmp/disk"
    run_test "nbdcopy there and back" nbdcopy_round_trip
    run_test "qemu-img there and back" qemu_convert_round_trip
    run_test "holes are told" maps_holes
fi
run_test "qemu-io writes, zeroes, discards and reads" qemu_io_patterns
run_test "zeroes hold space if asked to" zeroes_hold_space_or_not
run_test "fio verifies 4 KiB random I/O at depth 32" fio_verify 4k-4k
run_test "fio verifies random I/O of 512 bytes to 64 KiB" fio_verify 512-64k
with_python "random requests of all kinds against a model" timeout 300 "$python" tests/it/nbd_model.py "$(uri web0)"

# ---- several connections ----

# Two connections of one process: of a second process nothing would be taken.
two_connections_at_once() {
    timeout 300 fio --name=halves --ioengine=nbd --uri="$(uri web0)" --thread --numjobs=2 --rw=randwrite --bs=4k \
        --iodepth=16 --offset_increment="$((size / 2))" --size="$((size / 2))" --io_size=32M --verify=crc32c \
        --verify_fatal=1 --verify_state_save=0 --randrepeat=0
}

# flushes_during COMMAND...: how often it made poold flush a disk.
flushes_during() {
    local before
    before=$(json '[.disks[].flush.ios] | add' stat)
    "$@" >&2
    echo "$(($(json '[.disks[].flush.ios] | add' stat) - before))"
}

# A client that begins to write flushes each disk once, for its epoch.
claim=3

# What one connection has written, another reads, and flushes.
multi_conn_flush() {
    local a=('a = nbd.NBD()' "a.connect_uri('$(uri web0)')" 'a.pwrite(b"m" * 65536, 1 << 20)')
    a+=('assert h.pread(65536, 1 << 20) == b"m" * 65536')
    sh "$(uri web0)" 'h.flush()' &&
        (($(flushes_during sh "$(uri web0)" "${a[@]}") == claim)) &&
        (($(flushes_during sh "$(uri web0)" 'h.flush()') > 0)) &&
        (($(flushes_during sh "$(uri web0)" 'h.flush()') == 0))
}

fua_flushes() {
    local op
    for op in 'h.pwrite(bytes(4096), 0' 'h.zero(4096, 0' 'h.trim(4096, 0'; do
        (($(flushes_during sh "$(uri web0)" "$op)") == claim)) || return
        (($(flushes_during sh "$(uri web0)" "$op, nbd.CMD_FLAG_FUA)") > claim)) || return
    done
}

# undisturbed COMMAND...: a checkpoint flushes too, up to ten seconds after a write; it does not spoil three counts in a row.
undisturbed() {
    "$@" || "$@" || "$@"
}

survives_kill9() {
    sh "$(uri web0)" 'h.pwrite(b"k" * (1 << 20), 3 << 20)'
    poold_kill9
    poold_start
    wait_until 20 nbdinfo --size "$(uri web0)"
    sh "$(uri web0)" 'assert h.pread(1 << 20, 3 << 20) == b"k" * (1 << 20)'
}

# Client processes that hold a connection each; one over the limit is turned away, and all goes on.
connection_limit() {
    sh "$(uri web0)" \
        'all = []' \
        'exec("for i in range(31):\n x = nbd.NBD()\n x.connect_uri(\"'"$(uri web0)"'\")\n all.append(x)")' \
        'x = nbd.NBD()' \
        'exec("try:\n x.connect_uri(\"'"$(uri web0)"'\")\n assert False\nexcept nbd.Error:\n pass")' \
        'assert len(all[30].pread(4096, 0)) == 4096'
    wait_until 5 nbdinfo --size "$(uri web0)"
    json '.exports[0].turned_away | select(. >= 1)' stat
}

run_test "two connections write at once" two_connections_at_once
with_python "a flush covers what another connection wrote" undisturbed multi_conn_flush
with_python "FUA flushes, and nothing else does" undisturbed fua_flushes
with_python "what was acknowledged survives kill -9" survives_kill9
with_python "connections are limited" connection_limit

# ---- read-only exports ----

add_read_only() {
    ctl export add tank/web0 --nbd "unix:$tmp/ro.nbd" --read-only
    ctl export list | grep -q "read-only.*$tmp/ro.nbd"
}

refuses_writes() {
    local ro="nbd+unix:///?socket=$tmp/ro.nbd"
    nbdinfo --is read-only "$ro"
    sh "$ro" 'h.set_strict_mode(0)' \
        'exec("for op in (lambda: h.pwrite(bytes(512), 0), lambda: h.zero(512, 0), lambda: h.trim(512, 0)):\n try:\n  op()\n  assert False\n except nbd.Error as e:\n  assert e.errno == \"EPERM\", e.errno")' \
        'h.pread(512, 0)' 'h.flush()'
}

second_writer_is_refused() {
    fails ctl export add tank/web0 --nbd "unix:$tmp/second.nbd" 2>"$tmp/err"
    grep -q 'for writing' "$tmp/err"
    [[ ! -e $tmp/second.nbd ]]
}

run_test "a read-only export beside the writable one" add_read_only
with_python "it refuses writes, zeroes and trims" refuses_writes
run_test "a second writable export is refused" second_writer_is_refused
run_test "it is removed by its address" ctl export remove "unix:$tmp/ro.nbd"

# ---- TCP ----

free_port() {
    local port
    for port in $(seq $((20000 + $$ % 20000)) 45000); do
        (: <>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
    done
    echo "$port"
}

tcp_round_trip() {
    ctl export add tank/web0 --nbd "tcp:127.0.0.1:$port" --read-only
    nbdinfo --size "nbd://127.0.0.1:$port/web0"
    qemu-img compare -f raw -F raw "nbd://127.0.0.1:$port/web0" "$(uri web0)"
    ctl export remove "tcp:127.0.0.1:$port"
    fails nbdinfo --size "nbd://127.0.0.1:$port/web0"
}

bad_addresses() {
    local address
    for address in tcp: tcp:nowhere tcp:127.0.0.1: tcp:127.0.0.1:notaport tcp:::1:9 "unix:" "unix:$tmp" udp:1:2; do
        echo "$address"
        fails ctl export add tank/web0 --nbd "$address" --read-only
    done
}

port=$(free_port)
run_test "TCP" tcp_round_trip
run_test "bad addresses are refused" bad_addresses

# ---- TLS ----

# certificate NAME PURPOSE SIGNER: makes $tmp/SIGNER/NAME-cert.pem and its key.
certificate() {
    local dir=$tmp/$3
    printf 'cn = localhost\ndns_name = localhost\n%s\nsigning_key\nencryption_key\n' "$2" >"$tmp/template"
    certtool --generate-privkey --key-type ecdsa --outfile "$dir/$1-key.pem"
    certtool --generate-certificate --load-ca-certificate "$dir/ca-cert.pem" --load-ca-privkey "$dir/ca-key.pem" \
        --load-privkey "$dir/$1-key.pem" --template "$tmp/template" --outfile "$dir/$1-cert.pem"
}

# authority NAME: a folder $tmp/NAME with all that a server and a client need.
authority() {
    mkdir "$tmp/$1"
    printf 'cn = test\nca\ncert_signing_key\n' >"$tmp/template"
    certtool --generate-privkey --key-type ecdsa --outfile "$tmp/$1/ca-key.pem"
    certtool --generate-self-signed --load-privkey "$tmp/$1/ca-key.pem" --template "$tmp/template" \
        --outfile "$tmp/$1/ca-cert.pem"
    certificate server tls_www_server "$1"
    certificate client tls_www_client "$1"
}

tls_uri() {
    echo "nbds+unix://$1localhost/tls0?socket=$tmp/tls0.nbd&$2"
}

tls_by_certificates() {
    local uri
    uri=$(tls_uri "" "tls-certificates=$tmp/ours")
    nbdinfo "$uri" | tee "$tmp/info"
    grep -q 'newstyle-fixed with TLS' "$tmp/info"
    nbdcopy "$uri" null:
    sh "$uri" 'h.pwrite(b"t" * (1 << 20), 512)' 'assert h.pread(1 << 20, 512) == b"t" * (1 << 20)'
}

qemu_by_certificates() {
    qemu-io --object "tls-creds-x509,id=t,endpoint=client,dir=$tmp/ours" --image-opts \
        "driver=raw,file.driver=nbd,file.path=$tmp/tls0.nbd,file.export=tls0,file.tls-creds=t,file.tls-hostname=localhost" \
        -c 'write -P 7 8M 1M' -c 'read -P 7 8M 1M' | tee "$tmp/out"
    fails grep -qiE 'fail|error' "$tmp/out"
}

# Whoever a strange authority vouches for, or who shows nothing.
strangers_are_refused() {
    mkdir -p "$tmp/nobody"
    cp "$tmp/ours/ca-cert.pem" "$tmp/nobody/"
    cp "$tmp/ours/ca-cert.pem" "$tmp/theirs/ca-cert.pem"
    fails nbdinfo "$(tls_uri "" "tls-certificates=$tmp/nobody")"
    fails nbdinfo "$(tls_uri "" "tls-certificates=$tmp/theirs")"
}

plain_text_is_refused() {
    fails nbdinfo --size "nbd+unix:///tls0?socket=$tmp/tls0.nbd"
    fails qemu-img info "nbd+unix:///tls0?socket=$tmp/tls0.nbd"
    fails nbdinfo --size "$(uri web0 | sed 's/^nbd/nbds/')"
}

tls_by_keys() {
    ctl export remove "unix:$tmp/tls0.nbd"
    ctl export add tank/tls0 --nbd "unix:$tmp/tls0.nbd" --tls-psk "$tmp/keys.psk"
    nbdinfo "$(tls_uri alice@ "tls-psk-file=$tmp/keys.psk")" | grep -q 'newstyle-fixed with TLS'
    nbdcopy "$(tls_uri alice@ "tls-psk-file=$tmp/keys.psk")" null:
}

wrong_keys_are_refused() {
    fails nbdinfo "$(tls_uri alice@ "tls-psk-file=$tmp/wrong.psk")"
    fails nbdinfo "$(tls_uri mallory@ "tls-psk-file=$tmp/wrong.psk")"
}

survives_restart() {
    poold_stop
    poold_start
    wait_until 20 nbdinfo --size "$(tls_uri alice@ "tls-psk-file=$tmp/keys.psk")"
    plain_text_is_refused
}

bad_files_are_refused() {
    echo "alice" >"$tmp/bad.psk"
    fails ctl export add tank/web0 --nbd "unix:$tmp/bad.nbd" --read-only --tls-psk "$tmp/bad.psk"
    fails ctl export add tank/web0 --nbd "unix:$tmp/bad.nbd" --read-only --tls-psk "$tmp/no-such-file"
    fails ctl export add tank/web0 --nbd "unix:$tmp/bad.nbd" --read-only --tls-certs "$tmp"
    fails ctl export add tank/web0 --nbd "unix:$tmp/bad.nbd" --read-only --tls-certs "$tmp/ours" --tls-psk "$tmp/keys.psk"
    fails ctl export add tank/web0 --vhost-user "$tmp/bad.vhost" --read-only --tls-certs "$tmp/ours"
    [[ ! -e $tmp/bad.nbd && ! -e $tmp/bad.vhost ]]
}

if command -v certtool psktool >/dev/null; then
    { authority ours && authority theirs; } >/dev/null 2>&1
    psktool -u alice -p "$tmp/keys.psk" >/dev/null 2>&1
    psktool -u alice -p "$tmp/wrong.psk" >/dev/null 2>&1
    psktool -u mallory -p "$tmp/wrong.psk" >/dev/null 2>&1
    nbd_volume tls0 --tls-certs "$tmp/ours"
    with_python "TLS by certificates" tls_by_certificates
    run_test "QEMU's TLS by certificates" qemu_by_certificates
    run_test "clients without a certificate of ours are refused" strangers_are_refused
    run_test "plain text is refused where TLS is required, and TLS where there is none" plain_text_is_refused
    run_test "TLS by pre-shared keys" tls_by_keys
    run_test "wrong keys are refused" wrong_keys_are_refused
    run_test "TLS is still required after a restart" survives_restart
    run_test "bad certificates and keys are refused, and leave nothing" bad_files_are_refused
else
    skip_test "TLS" "certtool and psktool (gnutls-bin) are not installed"
fi

# ---- hostile clients ----

# Writes over the volume, which is larger than a length in the protocol can be.
hostile() {
    local other=()
    [[ ! -S $tmp/tls0.nbd ]] || other=(--other-socket "$tmp/tls0.nbd")
    ctl volume create tank/big --size 6G
    ctl export add tank/big --nbd "unix:$tmp/big.nbd"
    timeout 600 "$BUILD/nbd-hostile" --socket "$tmp/big.nbd" --server-pid "$(pid_of poold)" "${other[@]}"
}

run_test "hostile clients are survived (build/nbd-hostile)" hostile

# ---- the end ----

# Requests in flight are answered, the client then hears of the end, and nothing is lost.
stops_with_clients() {
    fio --name=busy --ioengine=nbd --uri="$(uri web0)" --rw=randwrite --bs=4k --iodepth=32 --size="$size" \
        --time_based --runtime=60 >"$tmp/fio.log" 2>&1 &
    sleep 1
    poold_stop
    wait "$!" || true
    poold_start
    wait_until 20 nbdinfo --size "$(uri web0)"
}

run_test "poold stops in good order while a client writes" stops_with_clients
end_tests
