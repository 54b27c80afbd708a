# Common ground of the lints; each one sources it first. Not a program.
#
# A lint is a list of rules. A rule is a command that prints what breaks it, one line each, and nothing when all is well.
# shellcheck shell=bash
set -euo pipefail
export LC_ALL=C

cd "$(dirname "${BASH_SOURCE[0]}")/../.."

rules_run=0
rules_broken=0

# rule NAME COMMAND...
rule() {
    local name=$1 found
    shift
    rules_run=$((rules_run + 1))
    if found=$("$@" 2>&1) && [[ -z $found ]]; then
        echo "ok $rules_run - $name"
        return
    fi
    rules_broken=$((rules_broken + 1))
    echo "not ok $rules_run - $name"
    sed 's/^/# /' <<<"$found"
}

end_rules() {
    echo "1..$rules_run"
    ((rules_broken == 0))
}

# sources PATTERN DIR...: files of the tree with such a name; folders that are not there are empty.
sources() {
    local pattern=$1 dir
    shift
    for dir in "$@"; do
        [[ ! -d $dir ]] || find "$dir" -type f -name "$pattern"
    done | sort
}
