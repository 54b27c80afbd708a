#!/usr/bin/env bash
# Fetches and configures the source of exactly the installed fio, which an external engine is built against.
#
#   fio-source.sh DIR     DIR becomes the configured tree; nothing is done when it is that of the installed fio
#
# The machine's apt configuration stays as it is: source list, lists and cache are folders beside DIR. The mirrors are
# those that the machine's own configuration names.
set -euo pipefail

tree=$(realpath -m "${1:?usage: fio-source.sh DIR}")
aside=$tree.apt

version=$(dpkg-query -W -f '${source:Version}' fio)
if [[ -f $tree/config-host.h && $(cat "$tree/.fetched" 2>/dev/null) == "$version" ]]; then
    exit 0
fi

rm -rf "$tree" "$aside"
mkdir -p "$aside/lists/partial" "$aside/cache/archives/partial"

# Site, release and component of each Debian archive that binary packages come from.
# shellcheck disable=SC2016 # apt's own variables
apt-get indextargets --format '$(ORIGIN) $(SITE) $(RELEASE) $(COMPONENT)' 'Identifier: Packages' |
    awk '$1 == "Debian" && !seen[$0]++ { print "deb-src", $2, $3, $4 }' >"$aside/sources.list"
[[ -s $aside/sources.list ]] || {
    echo "fio-source: apt knows no Debian archive; run apt-get update" >&2
    exit 1
}

private_apt() {
    apt-get -q -o APT::Sandbox::User=root \
        -o Dir::Etc::SourceList="$aside/sources.list" -o Dir::Etc::SourceParts=/dev/null \
        -o Dir::State::Lists="$aside/lists" -o Dir::Cache="$aside/cache" "$@"
}

fetch() {
    private_apt update
    cd "$aside"
    private_apt --only-source source "fio=$version"
    mv "$aside"/fio-*/ "$tree"
    cd "$tree"
    ./configure
    echo "$version" >.fetched
}

echo "fio-source: fetching the source of fio $version"
(fetch) >"$aside/log" 2>&1 || {
    tail -n 20 "$aside/log" >&2
    exit 1
}
