#!/usr/bin/env bash
# What a hostile or broken client can say to the control socket: each is refused with an error that
# tells why, nothing leaks, and the daemon serves others as before.
# shellcheck source=tests/it/functions.sh
. "$(dirname "$0")/functions.sh"
requires_poold
requires "${CC:-gcc}" setpriv

client=$tmp/client
"${CC:-gcc}" -O1 -Wall -Wextra -Werror -D_GNU_SOURCE -o "$client" tests/it/control_client.c ||
    skip_all "no compiler for the client"

# say [WAIT_MS]: sends stdin, prints the answers.
say() {
    "$client" "$POOLD_SOCKET" send "${1:-1000}"
}

# call METHOD PARAMS: one request's answer.
call() {
    printf '{"jsonrpc": "2.0", "method": "%s", "params": %s, "id": 1}\n' "$1" "$2" | say 300
}

# refused CODE < REQUEST: the first answer is an error of this code, and poold still answers others.
refused() {
    local want=$1 got
    say 300 >"$tmp/answers" 2>"$tmp/closed"
    head -c 400 "$tmp/answers"
    got=$(head -n 1 "$tmp/answers" | jq -r .error.code)
    [[ $got == "$want" ]]
    poold_answers
}

# call_refused CODE METHOD PARAMS
call_refused() {
    printf '{"jsonrpc": "2.0", "method": "%s", "params": %s, "id": 1}\n' "$2" "$3" | refused "$1"
}

# size_refused PARAMS: whatever the volume.
size_refused() {
    call_refused -32000 volume.resize "$1"
    grep -q "give the volume's new 'size_bytes' or its 'delta_bytes'" "$tmp/answers"
}

# repeat TEXT COUNT
repeat() {
    local i
    for ((i = 0; i < $2; i++)); do printf '%s' "$1"; done
}

open_files() {
    find "/proc/$(pid_of poold)/fd" -mindepth 1 | wc -l
}

resident_kib() {
    awk '/^VmRSS/ { print $2 }' "/proc/$(pid_of poold)/status"
}

cleanup_fn end_launched poold
poold_start
pid=$(pid_of poold)
files_before=$(open_files)
resident_before=$(resident_kib)

parse=-32700 invalid=-32600 no_method=-32601 bad_params=-32602 failed=-32000 not_allowed=-32001

# ---- JSON ----

deep_arrays() { { repeat '[' 100000 && echo; } | refused $parse; }
deep_objects() { { repeat '{"a":' 20000 && echo; } | refused $parse; }
deep_params() { call_refused $parse status "$(repeat '{"a":' 20)1$(repeat '}' 20)"; }
brackets_in_strings() { call_refused $failed pool.show "{\"pool\": \"$(repeat '[{' 40)\"}"; }

too_large() {
    { repeat "$(printf '%01000d' 0)" 300 && echo; } | refused $parse
    grep -q closed "$tmp/closed"
}

too_large_without_end() {
    { printf '{"jsonrpc": "2.0", "method": "' && repeat "$(printf '%01000d' 0)" 300; } | refused $parse
    grep -q closed "$tmp/closed"
}

run_test "100,000 arrays in each other are refused" deep_arrays
run_test "20,000 objects in each other are refused" deep_objects
run_test "parameters nested too deep are refused" deep_params
run_test "brackets in a string are no nesting" brackets_in_strings
run_test "a request that is too large is refused and the connection ended" too_large
run_test "so is one that never ends" too_large_without_end
run_test "a key given twice is refused" eval \
    "echo '{\"jsonrpc\": \"2.0\", \"method\": \"status\", \"method\": \"stat\", \"id\": 1}' | refused $parse"
run_test "a parameter given twice is refused" call_refused $parse pool.show '{"pool": "a", "pool": "b"}'
run_test "no JSON is refused" eval "echo 'GET / HTTP/1.1' | refused $parse"
run_test "random bytes are refused" eval "{ head -c 5000 /dev/urandom | tr -d '\n' && echo; } | refused $parse"
run_test "an integer beyond 64 bits is refused" call_refused $parse volume.resize \
    '{"volume": "a/b", "size_bytes": 99999999999999999999}'
run_test "a resize to no size is refused" size_refused '{"volume": "a/b"}'
run_test "a resize to two sizes is refused" size_refused '{"volume": "a/b", "size_bytes": 4096, "delta_bytes": 4096}'

# ---- text ----

run_test "a byte that is not UTF-8 is refused" eval \
    "printf '{\"jsonrpc\": \"2.0\", \"method\": \"a\xff\", \"id\": 1}\n' | refused $parse"
run_test "an overlong form is refused" eval \
    "printf '{\"jsonrpc\": \"2.0\", \"method\": \"a\xc0\xaf\", \"id\": 1}\n' | refused $parse"
run_test "half a surrogate pair is refused" call_refused $parse pool.show '{"pool": "\ud800"}'
run_test "an escaped NUL is refused" call_refused $parse pool.show '{"pool": "a\u0000b"}'
run_test "a raw NUL is refused" eval \
    "printf '{\"jsonrpc\": \"2.0\", \"method\": \"a\0b\", \"id\": 1}\n' | refused $parse"
run_test "a control character in a parameter is refused" call_refused $bad_params pool.show '{"pool": "a\nb"}'

# ---- requests ----

run_test "a batch is refused" eval "echo '[]' | refused $invalid"
run_test "another version is refused" eval \
    "echo '{\"jsonrpc\": \"1.0\", \"method\": \"status\", \"id\": 1}' | refused $invalid"
run_test "a method that is no string is refused" eval "echo '{\"jsonrpc\": \"2.0\", \"method\": 7}' | refused $invalid"
run_test "an id that is an object is refused" eval \
    "echo '{\"jsonrpc\": \"2.0\", \"method\": \"status\", \"id\": {}}' | refused $invalid"
run_test "parameters in an array are refused" call_refused $bad_params status '[1]'
run_test "an unknown method is refused" call_refused $no_method pool.explode '{}'
run_test "an unknown parameter is refused" call_refused $bad_params pool.list '{"colour": "red"}'
run_test "a missing parameter is refused" call_refused $bad_params pool.show '{}'
run_test "a number for a name is refused" call_refused $bad_params pool.show '{"pool": 1}'
run_test "a string for a list is refused" call_refused $bad_params pool.create '{"name": "a", "disks": "b"}'
run_test "a list that holds no strings is refused" call_refused $bad_params pool.create '{"name": "a", "disks": [1]}'
run_test "an empty list is refused" call_refused $bad_params pool.create '{"name": "a", "disks": []}'
run_test "a list that is too long is refused" call_refused $bad_params pool.import \
    "{\"disks\": [$(repeat '"/x",' 300)\"/x\"]}"
run_test "a negative size is refused" call_refused $bad_params volume.create '{"volume": "a/b", "size_bytes": -1}'
run_test "a size with a fraction is refused" call_refused $bad_params volume.create '{"volume": "a/b", "size_bytes": 1.5}'
run_test "a size that is too large is refused" call_refused $bad_params volume.create \
    '{"volume": "a/b", "size_bytes": 9223372036854775807}'
run_test "a string for a flag is refused" call_refused $bad_params pool.export '{"pool": "a", "force": "yes"}'
run_test "too many queues are refused" call_refused $bad_params export.add \
    '{"volume": "a/b", "kind": "vhost-user-blk", "address": "/x", "queues": 4294967298}'

for name in .. ../etc .hidden -dash a/b/c /abs '' 'a b' "$(repeat x 65)" 'ä'; do
    run_test "'${name:0:10}' is no name of a pool" eval \
        "call pool.create '{\"name\": \"$name\", \"disks\": [\"ram:64M\"]}' | jq -e '.error.data.errno == 22'"
done

# ---- connections ----

pipelined() {
    for i in {1..500}; do
        echo "{\"jsonrpc\": \"2.0\", \"method\": \"status\", \"id\": $i}"
    done >"$tmp/many-requests"
    say <"$tmp/many-requests" | jq .id >"$tmp/ids"
    seq 1 500 | cmp - "$tmp/ids"
}

notification_is_silent() {
    local answers
    answers=$(printf '%s\n%s\n' '{"jsonrpc": "2.0", "method": "status"}' \
        '{"jsonrpc": "2.0", "method": "help", "id": 5}' | say 300 | jq .id)
    [[ $answers == 5 ]]
}

half_message() {
    local start=$SECONDS
    printf '{"jsonrpc": "2.0", "meth' | say 15000 >"$tmp/answers" 2>"$tmp/closed" &
    sleep 1
    poold_answers
    wait $!
    cat "$tmp/answers"
    grep -q closed "$tmp/closed"
    ((SECONDS - start >= 9 && SECONDS - start <= 13))
}

idle_stays() {
    { sleep 2 && echo '{"jsonrpc": "2.0", "method": "help", "id": 9}'; } | say 3000 | jq -e '.id == 9'
}

# Sends and never reads; runs beside the tests that follow it.
start_deaf() {
    seq 20000 | sed 's/.*/{"jsonrpc": "2.0", "method": "help", "id": &}/' >"$tmp/deaf-requests"
    # shellcheck disable=SC2016 # the inner shell's
    launch deaf bash -c '"$0" "$1" deaf 12000 <"$2" >"$2.out"' "$client" "$POOLD_SOCKET" "$tmp/deaf-requests"
    sleep 0.5
    poold_answers
}

deaf_is_closed() {
    wait_until 30 test -s "$tmp/deaf.rc"
    cat "$tmp/deaf.log"
    grep -q closed "$tmp/deaf.log"
}

thousand_ask() {
    local answered
    answered=$("$client" "$POOLD_SOCKET" many 1000 30000 | tail -n 1)
    echo "$answered of 1000 were answered"
    ((answered == 1000))
}

thousand_hold() {
    local start=$SECONDS
    "$client" "$POOLD_SOCKET" hold 1000 20000 >"$tmp/hold.out" &
    local holder=$!
    wait_until 10 grep -q connected "$tmp/hold.out"
    poold_answers
    echo "answered after $((SECONDS - start)) s"
    kill "$holder"
    wait "$holder" || true
    ((SECONDS - start < 15))
}

cleanup_fn end_launched deaf
run_test "a client that does not read holds up nobody" start_deaf
run_test "500 requests in one go are answered in order" pipelined
run_test "a notification is not answered" notification_is_silent
run_test "half a message is given up after 10 s, others go on" half_message
run_test "a connection may be idle" idle_stays
run_test "1,000 connections that ask at once are all answered" thousand_ask
run_test "1,000 connections that hold do not shut others out" thousand_hold

run_test "a client that does not read is closed" deaf_is_closed

# ---- peers ----

wrong_uid() {
    chmod 666 "$POOLD_SOCKET"
    echo '{"jsonrpc": "2.0", "method": "status", "id": 1}' >"$tmp/request"
    chmod 711 "$tmp"
    chmod 755 "$client"
    setpriv --reuid=65534 --regid=65534 --clear-groups "$client" "$POOLD_SOCKET" send 1000 \
        <"$tmp/request" >"$tmp/answers"
    cat "$tmp/answers"
    [[ $(jq .error.code "$tmp/answers") == "$not_allowed" ]]
}

wrong_uid_by_mode() {
    chmod 600 "$POOLD_SOCKET"
    ! setpriv --reuid=65534 --regid=65534 --clear-groups "$client" "$POOLD_SOCKET" send 100 <"$tmp/request"
}

if ((EUID == 0)); then
    run_test "another user is refused whatever the socket's mode" wrong_uid
    run_test "another user cannot even connect" wrong_uid_by_mode
else
    skip_test "another user is refused" "must be root to try"
fi

# ---- afterwards ----

files_are_closed() {
    echo "open files: $(open_files), before: $files_before"
    (($(open_files) <= files_before + 1))
}

memory_is_bounded() {
    echo "resident: $(resident_kib) KiB, before: $resident_before KiB"
    (($(resident_kib) < resident_before + ${1:-65536}))
}

still_the_same() {
    alive "$pid"
    poold_answers
}

no_pool_was_made() {
    [[ $(json 'length' pool list) == 0 ]]
}

sanitized=$(nm "$POOLD" 2>/dev/null | grep -c __asan_init || true)
run_test "it is still the same daemon" still_the_same
run_test "no pool was made by all this" no_pool_was_made
run_test "all connections are closed" wait_until 15 files_are_closed
run_test "memory is bounded" memory_is_bounded "$((sanitized ? 1000000 : 65536))"
run_test "SIGTERM ends it with exit code 0" poold_stop
end_tests
