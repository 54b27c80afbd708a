# NBD and iSCSI servers on loopback, each with one disk of its own; sourced behind functions.sh. Not a program.
#
# A server has a name; its disk is the file $disk_dir/NAME, which server_make makes. nbdkit's cache filter holds what is not flushed in
# memory of its own, so a kill loses it.
#
# shellcheck shell=bash
# shellcheck disable=SC2154 # $tmp and $disk_dir are functions.sh's
declare -A server_kind server_port
server_names=()
server_port_next=$((20000 + RANDOM % 10000))

# server_make NAME nbd|iscsi SIZE: its disk; the server is not started.
server_make() {
    server_names+=("$1")
    server_kind[$1]=$2
    server_port[$1]=$((server_port_next++))
    truncate -s "$3" "$disk_dir/$1"
}

# server_uri NAME [OPTIONS]
server_uri() {
    case ${server_kind[$1]} in
    nbd) echo "nbd+unix:///?socket=$tmp/$1.socket${2:+&$2}" ;;
    iscsi) echo "iscsi://127.0.0.1:${server_port[$1]}/iqn.2024-01.test:$1/1${2:+?$2}" ;;
    esac
}

# tgt NAME ARGUMENT...: tgtadm for that server.
tgt() {
    local name=$1
    shift
    TGT_IPC_SOCKET=$tmp/$name.tgt tgtadm -C 1 --lld iscsi "$@"
}

server_start_nbd() {
    rm -f "$tmp/$1.socket"
    launch "$1" nbdkit --foreground --unix "$tmp/$1.socket" --filter=cache file "$disk_dir/$1" cache=writeback
    wait_until 10 nbdinfo --size "nbd+unix:///?socket=$tmp/$1.socket" >/dev/null 2>&1
}

# Starts tgtd; it goes on without its portal if that cannot be had.
iscsi_serve() {
    rm -f "$tmp/$1".tgt.*
    launch "$1" env "TGT_IPC_SOCKET=$tmp/$1.tgt" tgtd -f --iscsi "portal=127.0.0.1:${server_port[$1]}" -C 1
    wait_until 10 tgt "$1" --op show --mode target >/dev/null 2>&1
    [[ $(tgt "$1" --op show --mode portal) == *":${server_port[$1]},"* ]] && return
    server_kill "$1"
    return 1
}

server_start_iscsi() {
    # While the last connections of the one that was killed are being torn down, the port is not free.
    wait_until 20 iscsi_serve "$1" >/dev/null
    tgt "$1" --op new --mode target --tid 1 -T "iqn.2024-01.test:$1"
    tgt "$1" --op new --mode logicalunit --tid 1 --lun 1 -b "$disk_dir/$1"
    tgt "$1" --op bind --mode target --tid 1 -I ALL
}

server_start() {
    "server_start_${server_kind[$1]}" "$1"
}

server_kill() {
    kill -KILL "$(pid_of "$1")"
    wait_until 10 gone "$(pid_of "$1")"
    wait_until 10 test -s "$tmp/$1.rc" # the last that is written for it
}

servers_start() {
    local name
    for name in "${server_names[@]}"; do
        server_start "$name"
    done
}

# For cleanup_fn.
servers_end() {
    local name
    for name in "${server_names[@]}"; do
        server_kill "$name" || true
    done
}

# server_disk_is NAME STATE: as the pool tank sees it.
server_disk_is() {
    [[ $(ctl --json pool show tank | jq -r --arg uri "$(server_uri "$1")" '.disks[] | select(.disk | startswith($uri)).state') == "$2" ]]
}

servers_online() {
    local name
    for name in "${server_names[@]}"; do
        server_disk_is "$name" online || return 1
    done
}
