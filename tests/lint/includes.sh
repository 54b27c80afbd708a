#!/usr/bin/env bash
# Every include points down the tower (see ARCHITECTURE.md), and the engine does not see the system.
# shellcheck source=tests/lint/functions.sh
. "$(dirname "$0")/functions.sh"

folders=(pool volumes snapshots targets vmm-glue tools)

# all_includes: "FILE:LINE includer-path included-path kind", kind being " or <.
all_includes() {
    sources '*.[ch]' "${folders[@]}" | xargs grep -HnE '^[[:space:]]*#[[:space:]]*include' |
        sed -nE 's/^([^:]*):([0-9]+):[[:space:]]*#[[:space:]]*include[[:space:]]*(["<])([^">]*).*/\1:\2 \1 \4 \3/p'
}

# from_the_root: own headers are named by their path from the root.
from_the_root() {
    all_includes | while read -r where _ header kind; do
        [[ $kind == '<' || -f $header ]] || echo "$where: \"$header\" is not a path from the root"
    done
}

# points_down: floors by folder. vmm-glue stands between targets and tools, and a rule of its own narrows what it takes.
points_down() {
    all_includes | awk '
        BEGIN { split("pool/base pool/runtime pool/disks pool volumes snapshots targets tools", at, " ")
            for (i in at) floor_of[at[i]] = i
            floor_of["vmm-glue"] = floor_of["targets"] + 0.5 }
        function folder(path) { sub(/\/[^\/]*$/, "", path); return path }
        function floor(path) { path = folder(path); return path in floor_of ? floor_of[path] + 0 : 99 }
        $4 == "\"" && (floor($3) > floor($2)) {
            print $1 ": \"" $3 "\" is not below " folder($2) "/"
        }'
}

# allowed_only FILES ALLOWED: files whose path matches FILES include, of our own, only what matches ALLOWED.
allowed_only() {
    all_includes | awk -v files="$1" -v allowed="$2" '
        $4 == "\"" && $2 ~ files && $3 !~ allowed { print $1 ": \"" $3 "\" is not for this file" }'
}

# internal_stays: x_int.h is for its own folder (tests may look inside).
internal_stays() {
    all_includes | awk '
        function folder(path) { sub(/\/[^\/]*$/, "", path); return path }
        $4 == "\"" && $3 ~ /_int\.h$/ && folder($2) != folder($3) { print $1 ": \"" $3 "\" is internal to " folder($3) "/" }'
}

# engine_is_closed: no header of the system's, no reactor. What the engine may use of libc is checked by symbols.sh. The
# Makefile knows which sources are the real environment; mem.c is the real allocator.
engine_is_closed() {
    all_includes | awk -v real="$(make -s print-REAL_SRCS) pool/base/mem.c" '
        BEGIN { n = split(real, files, " "); for (i = 1; i <= n; i++) { is_real[files[i]] = 1 } }
        $2 !~ /^(pool|volumes|snapshots)\// || $2 in is_real { next }
        # Headers of the real environment go with their sources.
        $2 ~ /\.h$/ { source = $2; sub(/(_int)?\.h$/, ".c", source); if (source in is_real) next }
        $4 == "\"" && $3 ~ /^pool\/runtime\/(reactor|offload)/ { print $1 ": the engine does not see the reactor" }
        $4 == "<" && ($3 ~ /^(unistd|fcntl|poll|pthread|sched|signal|time|liburing|dirent|mntent)\.h$/ ||
            $3 ~ /^(net|netinet|arpa|linux|asm)\// || $3 ~ /^sys\// && $3 != "sys/uio.h") {
            print $1 ": the engine does not see <" $3 ">"
        }'
}

rule "own headers are included by their path from the root" from_the_root
rule "includes point down the tower" points_down
rule "internal headers stay in their folder" internal_stays
rule "the engine sees neither system nor reactor" engine_is_closed
rule "vmm-glue takes only vhost_proto and pool/base" \
    allowed_only '^vmm-glue/' '^(vmm-glue/|pool/base/|targets/vhost_(proto|format)\.h)'
rule "poolctl takes only rpc, streams and pool/base" \
    allowed_only '^tools/(poolctl[^/]*|rpc)\.[ch]$' '^(tools/(poolctl[^/]*|rpc|version)\.h$|snapshots/stream(_format)?\.h$|pool/base/)'
end_rules
