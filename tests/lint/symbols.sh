#!/usr/bin/env bash
# The engine calls nothing of libc but pure functions: looked up in its compiled archives, where nothing can hide.
# What it needs of the system comes through struct loop_ops, struct disk_ops and pool/base/mem.h.
#
#   ARCHIVES=DIR   where the archives are (default build/release)
# shellcheck source=tests/lint/functions.sh
. "$(dirname "$0")/functions.sh"

archives=${ARCHIVES:-build/release}
engine=(base runtime disks pool volumes snapshots)

# Memory and strings; text into buffers; sorting; numbers from text; the failed assertion.
pure='mem(p?cpy|move|set|cmp|chr|rchr|mem)|str(n?len|n?cmp|n?casecmp|r?chr|chrnul|n?cat|n?cpy|spn|cspn|str|pbrk|error(desc_np)?)
stpcpy|v?snprintf|qsort|bsearch|strto(u?ll?|d|k_r)|tolower|toupper|__ctype_(b|tolower|toupper)_loc|(__assert_fail|abort)|__errno_location'
# The compiler's helpers (what the CPU can do among them) and the checked forms of the above; Boost.Context and isa-l.
helpers='__(stack_chk_fail|tls_get_addr|(mem|stp|str|v?sn)[a-z]*_chk|popcountdi2|cpu_model|cpu_features2|udivti3|umodti3|udivmodti4|divti3)|_GLOBAL_OFFSET_TABLE_
(make|jump)_fcontext|crc32_iscsi|(ec_|gf_|isal_(de|in)flate_)[a-z0-9_]*|(__asan|__ubsan|__tsan|__sanitizer)_.*'
allowed="^($(tr '\n' '|' <<<"$pure"$'\n'"$helpers" | sed 's/|$//'))\$"

# strangers: symbols that the engine needs, does not define and may not have. mem.c is the real allocator.
strangers() {
    local name paths=() known
    for name in "${engine[@]}"; do
        [[ ! -f $archives/lib$name.a ]] || paths+=("$archives/lib$name.a")
    done
    known=$(nm --defined-only --extern-only --format=posix "${paths[@]}" 2>/dev/null | awk 'NF > 1 { print $1 }')
    nm --undefined-only --print-file-name --format=posix "${paths[@]}" 2>/dev/null |
        awk -v allowed="$allowed" -v known="$known" '
            BEGIN { n = split(known, names, "\n"); for (i = 1; i <= n; i++) ours[names[i]] = 1 }
            { object = $1; sub(/^.*\[/, "", object); sub(/\]:$/, "", object); sub(/@.*/, "", $2) }
            object == "mem.o" || $2 in ours || $2 ~ allowed { next }
            { print object " calls " $2 }'
}

[[ -f $archives/libbase.a ]] || {
    echo "1..0 # SKIP nothing is built in $archives"
    exit 0
}
rule "the engine calls pure functions only" strangers
end_rules
