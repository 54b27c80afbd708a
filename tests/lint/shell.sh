#!/usr/bin/env bash
# Scripts pass shellcheck. SC2016 would have a "$" in single quotes mean a mistake; to awk it is a field.
# shellcheck source=tests/lint/functions.sh
. "$(dirname "$0")/functions.sh"

command -v shellcheck >/dev/null || {
    echo "1..0 # SKIP 'shellcheck' is not installed"
    exit 0
}

while read -r script; do
    rule "$script" shellcheck --external-sources --exclude=SC2016 "$script"
done < <(grep -rlIE '^#!.*\b(ba|da)?sh\b' .ci tools tests | sort)
end_rules
