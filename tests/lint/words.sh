#!/usr/bin/env bash
# Words that must not stay in the tree.
# shellcheck source=tests/lint/functions.sh
. "$(dirname "$0")/functions.sh"

# tree: every text file of ours but this one.
tree() {
    find . \( -path ./.git -o -path ./build \) -prune -o -type f -not -path ./tests/lint/words.sh -print0
}

# code: C sources.
code() {
    sources '*.[ch]' pool volumes snapshots check targets vmm-glue tools tests | tr '\n' '\0'
}

# without_match LIST GREP_ARGUMENTS...: lines that match in the files that LIST names.
without_match() {
    local list=$1
    shift
    "$list" | xargs -0 -r grep -HnI "$@" || true
}

# backward_gotos: each goto whose label stands above it in the same function.
backward_gotos() {
    code | xargs -0 -r awk '
        FNR == 1 || /^}/ { split("", label) }
        match($0, /^[a-z_0-9]+:/) { label[substr($0, 1, RLENGTH - 1)] = 1 }
        match($0, /goto [a-z_0-9]+;/) && substr($0, RSTART + 5, RLENGTH - 6) in label { print FILENAME ":" FNR ":" $0 }'
}

rule "nothing is marked as left to do" without_match tree -wE 'TODO|FIXME|XXX|HACK|not implemented yet'
rule "no path of one machine" without_match tree -E "$PWD/|/root/|/home/[a-z]"
rule "no function that cannot be used safely" without_match code -E '\b(strcat|sprintf|vsprintf|gets|strtok|alloca)\('
rule "no blank at the end of a line" without_match code -E '[[:space:]]$'
rule "goto goes forward" backward_gotos
end_rules
