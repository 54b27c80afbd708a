#!/usr/bin/env bash
# Every header compiles alone, in any order and twice.
# shellcheck source=tests/lint/functions.sh
. "$(dirname "$0")/functions.sh"

read -ra flags <<<"${CC:-gcc} -std=gnu11 -D_GNU_SOURCE -march=x86-64-v2 -I. -Wall -Wextra -Werror -Wno-unused-parameter"

# compiles HEADER
compiles() {
    printf '#include "%s"\n#include "%s"\n' "$1" "$1" |
        "${flags[@]}" -fsyntax-only -x c -
}

while read -r header; do
    rule "$header" compiles "$header"
done < <(sources '*.h' pool volumes snapshots check targets vmm-glue tools tests)
end_rules
