#!/usr/bin/env bash
# What poolctl says of itself: help, man page, completion and exit codes agree with what it does.
# shellcheck source=tests/it/functions.sh
. "$(dirname "$0")/functions.sh"
requires_poold

# exits CODE COMMAND...
exits() {
    local want=$1 rc=0
    shift
    "$@" </dev/null || rc=$?
    echo "exit code $rc, wanted $want"
    [[ $rc == "$want" ]]
}

synopses() {
    ctl help | grep -oE '^  poolctl .*' | sed 's/^  //'
}

# ---- help and man pages ----

man_has_all_commands() {
    while read -r synopsis; do
        echo "$synopsis"
        grep -qxF ".It Ic $synopsis" tools/man/poolctl.8
    done < <(synopses)
}

man_has_no_others() {
    grep -oE '^\.It Ic poolctl .*' tools/man/poolctl.8 | sed 's/^.It Ic //' | sort >"$tmp/man"
    synopses | sort | diff - "$tmp/man"
}

man_has_poold_options() {
    for option in $("$POOLD" --help | grep -oE '^  --[a-z-]+'); do
        echo "$option"
        grep -qE "^\.It Fl Fl ${option#--}( |$)" tools/man/poold.8
    done
}

man_has_exit_codes() {
    ctl help | sed -n 's/^  \([0-9]\)  /\1 /p' >"$tmp/codes"
    awk '/^\.Sh EXIT STATUS/ { on = 1 } /^\.Sh EXAMPLES/ { on = 0 } on && /^\.It / { code = $2; getline; print code, $0 }' \
        tools/man/poolctl.8 | diff "$tmp/codes" -
}

every_command_has_help() {
    while read -r _ noun verb _; do
        [[ $verb =~ ^[a-z]+$ ]] || verb=
        # shellcheck disable=SC2086 # no verb, no word
        ctl $noun $verb --help | grep -q "^usage: poolctl $noun"
    done < <(synopses)
}

man_pages_format() {
    for page in tools/man/*.8; do
        man --warnings -E UTF-8 -l -Tutf8 "$page" 2>&1 >/dev/null | tee "$tmp/warnings"
        [[ ! -s $tmp/warnings ]]
    done
}

run_test "the man page has every command" man_has_all_commands
run_test "and no other" man_has_no_others
run_test "poold's man page has every option" man_has_poold_options
run_test "the man page has the exit codes" man_has_exit_codes
run_test "every command explains itself" every_command_has_help
if command -v man >/dev/null; then
    run_test "the man pages format without warnings" man_pages_format
else
    skip_test "the man pages format without warnings" "'man' is not installed"
fi

# ---- exit codes ----

run_test "3: no daemon" exits 3 ctl status
cleanup_fn end_launched poold
poold_start
make_disks 2 1G
disk=${disks[0]}

reports_errors_as_json() {
    ctl --json pool show nosuch 2>"$tmp/error" || true
    cat "$tmp/error"
    jq -e '.error.exit_code == 4 and .error.errno == "ENOENT" and (.error.message | length > 0)' "$tmp/error"
}

run_test "0: done" exits 0 ctl pool create tank "$disk"
run_test "1: failed" exits 1 ctl volume create tank/v --size 1G --policy mirror2
run_test "2: unknown noun" exits 2 ctl pools list
run_test "2: unknown verb" exits 2 ctl pool frobnicate
run_test "2: missing argument" exits 2 ctl pool show
run_test "2: one argument too many" exits 2 ctl pool show tank tank
run_test "2: unknown option" exits 2 ctl pool list --force
run_test "2: missing option" exits 2 ctl volume create tank/v
run_test "2: bad size" exits 2 ctl volume create tank/v --size 12parsecs
run_test "2: bad name" exits 2 ctl volume create tank/-v --size 1G
run_test "4: no such pool" exits 4 ctl pool show nosuch
run_test "4: no such volume" exits 4 ctl volume show tank/nosuch
run_test "4: no such export" exits 4 ctl export remove tank/nosuch
run_test "4: no such disk" exits 4 ctl pool import "$tmp/nosuch"
run_test "5: name taken" exits 5 ctl pool create tank "${disks[1]}"
run_test "5: disk in use" exits 5 ctl pool create other "$disk"
run_test "5: has snapshots" eval \
    'ctl volume create tank/s --size 1G; ctl snapshot create tank/s@a; exits 5 ctl volume delete tank/s --yes'
run_test "6: a snapshot is not resized" exits 6 ctl volume resize tank/s@a 2G
run_test "6: rollback without --yes" exits 6 ctl snapshot rollback tank/s@a
run_test "0: with its snapshots" exits 0 ctl volume delete tank/s --snapshots --yes
run_test "6: destroy without --yes" exits 6 ctl pool destroy tank
run_test "6: shrink without --force" eval \
    'ctl volume create tank/v --size 1G; exits 6 ctl volume resize tank/v -512M; exits 0 ctl volume resize tank/v -512M --force'
run_test "6: delete without --yes" exits 6 ctl volume delete tank/v
run_test "with --json errors are JSON" reports_errors_as_json

# ---- sizes and disks as arguments ----

resizes_relatively() {
    ctl volume create tank/r --size 1G
    ctl volume resize tank/r +512M
    ctl volume resize tank/r -- -256M --force 2>/dev/null || ctl volume resize tank/r -256M --force
    [[ $(json .size_bytes volume show tank/r) == $((1280 << 20)) ]]
    ctl volume resize tank/r 3G
    [[ $(json .size_bytes volume show tank/r) == $((3 << 30)) ]]
    ctl volume delete -y tank/r
}

creates_files() {
    (cd "$tmp" && "$OLDPWD/$POOLCTL" pool create files a.img file:b.img --create-size 256M)
    [[ $(stat -c %s "$tmp/a.img" "$tmp/b.img" | uniq) == $((256 << 20)) ]]
    [[ $(json .pool disk probe "$tmp/a.img") == files ]]
    ctl pool export files
    [[ $(json .pool disk probe "$tmp/a.img") == files ]]
    ctl pool import "$tmp/a.img" "$tmp/b.img"
    ctl pool destroy files --yes
    [[ $(ctl --json disk probe "$tmp/a.img" | jq .pool) == null ]]
}

run_test "sizes are absolute or relative" resizes_relatively
run_test "disks are files made where they are named" creates_files

# ---- completion ----

# offers WORDS WANTED: what the shell would offer for the last of the words.
offers() {
    local got
    # shellcheck disable=SC1091
    . tools/completion/poolctl
    COMP_LINE="$POOLCTL $1"
    COMP_POINT=${#COMP_LINE}
    _poolctl
    got="${COMPREPLY[*]}"
    echo "'$1': '$got', wanted '$2'"
    [[ $got == "$2" ]]
}

run_test "nouns are completed" offers '' 'pool disk scrub volume snapshot clone send recv export status retry stat help'
run_test "verbs are completed" offers 'volume re' 'resize rename'
run_test "options are completed" offers 'pool create --f' '--force'
run_test "names of pools are completed" offers 'pool show ' 'tank'
run_test "names of volumes are completed" offers 'volume delete ta' 'tank/v'
run_test "names of volumes to make snapshots of are completed" offers 'snapshot create ta' 'tank/v@'
ctl snapshot create tank/v@mon >/dev/null
run_test "names of snapshots are completed" offers 'snapshot show ' 'tank/v@mon'
run_test "behind the @ only what readline replaces" offers 'snapshot show tank/v@m' 'mon'
run_test "files are left to the shell" offers 'pool import ' ''
run_test "without a daemon there are no names" eval 'poold_stop; offers "pool show " ""'
end_tests
