#!/bin/sh
# `./run deb [SUITE...]`: the Debian package of each distribution, from the files that git knows, as they are here.
# Root. Packages go to dist/deb (DIST). AGAIN=yes builds, whatever is there. TREES says where the trees are kept in
# which they are built (tests/tree.sh).
#
# Each build sees a host of the distribution with build dependencies alone, and no network: all that PyPI gives is there
# before, by the hashes in requirements/. The wheels are fetched again when the lock changes. A package is built again
# when any of its files does, or the host. Nothing else is taken from an earlier run.
set -eu
cd "$(dirname "$0")/.."
trees=${TREES:-/var/tmp/gatewayd-trees}
packages=${DIST:-dist/deb}
needed="build-essential debhelper fakeroot lintian python3-dev python3-venv"

say() { printf '%s\n' "deb: $*" >&2; }

digest() { sha256sum | cut -c 1-16; }

# with_tools COMMAND...: on the host with what a build needs, below the layer $work/upper, which takes what is written.
with_tools() { tests/tree.sh over "$tools:$base" "$work/upper" "$@"; }

# make_tools SUITE: $base, a host of the distribution, and $tools, what the build dependencies add to it.
make_tools() {
    base=$(tests/tree.sh make "$1")
    tools=$trees/$1-tools-$({ echo "$needed"; stat -c %i-%W "$base"; } | digest)
    [ ! -d "$tools" ] || return 0
    rm -rf "$trees/$1-tools-"*
    say "$1: installing what a build needs"
    # shellcheck disable=SC2086 # the words are names
    tests/tree.sh over "$base" "$tools.part" sh -euc 'apt-get update; apt-get install -y --no-install-recommends "$@"
        apt-get clean' sh $needed >"$trees/$1-tools.log" 2>&1 || { tail -5 "$trees/$1-tools.log" >&2; return 1; }
    rm -rf "$tools.part.work"
    mv "$tools.part" "$tools"
}

# fetch_wheels SUITE: $wheels, what the locks name. With this host's settings of pip: its files, its variables, its
# proxy, the authorities that it trusts.
fetch_wheels() {
    wheels=$trees/$1-wheels-$(cat requirements/package.txt requirements/build.txt | digest)
    [ ! -d "$wheels" ] || return 0
    say "$1: fetching the wheels"
    for file in /etc/pip.conf "${PIP_CERT:-}" "${SSL_CERT_FILE:-}" "${REQUESTS_CA_BUNDLE:-}"; do
        [ ! -f "$file" ] || install -D -m 644 "$file" "$work/upper$file"
    done
    for file in "${HOME:-/root}/.pip/pip.conf" "${HOME:-/root}/.config/pip/pip.conf" "${PIP_CONFIG_FILE:-}"; do
        [ ! -f "$file" ] || install -D -m 644 "$file" "$work/upper/root/.config/pip/pip.conf"
    done
    (
        set --
        for name in $(env | sed -En 's/^(PIP_[A-Z_]+|SSL_CERT_FILE|REQUESTS_CA_BUNDLE|[a-zA-Z]+_(proxy|PROXY))=.*/\1/p'); do
            [ "$name" = PIP_CONFIG_FILE ] || eval "set -- \"\$@\" \"$name=\$$name\""
        done
        with_tools env "$@" make -C /build/gatewayd -f debian/rules wheels WHEELS=/build/wheels
    ) >"$work/log" 2>&1 || { tail -20 "$work/log" >&2; return 1; }
    rm -rf "$trees/$1-wheels-"*
    mv "$work/upper/build/wheels" "$wheels"
    rm -rf "$work/upper" "$work/upper.work"
}

# What a package is made of.
list_source() { git ls-files -z -- . ':!tests' ':!.ci'; }

copy_source() {
    mkdir -p "$work/upper/build/gatewayd"
    list_source | xargs -0 cp --parents --no-dereference -t "$work/upper/build/gatewayd"
}

# build SUITE: the names of its packages.
build() {
    case $1 in
        # Sorted, so that an upgrade of the distribution takes its own package.
        bookworm) mark="~deb12u1" ;;
        trixie) mark="~deb13u1" ;;
        noble) mark="~ubuntu24.04.1" ;;
        *) say "bookworm, trixie or noble, not $1"; exit 2 ;;
    esac
    # One at a time.
    exec 8>"$trees/.$1-package.lock"
    flock 8
    version=$(sed -n '1s/.*(\(.*\)).*/\1/p' debian/changelog)$mark
    make_tools "$1" || { say "$1: NOT BUILT: its archive gave no tree"; exit 1; }
    built=$trees/$1-package-$({ echo "$tools $version"; list_source | xargs -0 sha256sum; } | digest)
    [ -z "${AGAIN:-}" ] || built=$(mktemp -u "$trees/$1-again.XXXXXX")
    if [ ! -d "$built" ]; then
        work=$(mktemp -d "$trees/$1-build.XXXXXX")
        trap 'rm -rf "$work"' EXIT
        trap 'exit 130' INT TERM
        copy_source
        fetch_wheels "$1"
        copy_source
        cp -r "$wheels" "$work/upper/build/wheels"
        sed -i "1s/(.*) [a-z]*;/($version) $1;/" "$work/upper/build/gatewayd/debian/changelog"
        say "$1: building $version"
        with_tools unshare --net sh -euc 'cd /build/gatewayd
            WHEELS=/build/wheels dpkg-buildpackage --build=binary --no-sign' >"$work/log" 2>&1 ||
            { tail -30 "$work/log" >&2; say "$1: FAILED"; exit 1; }
        [ -n "${AGAIN:-}" ] || with_tools sh -euc 'cd /build
            lintian --allow-root --fail-on error,warning,info --tag-display-limit 0 ./*.changes' >"$work/log" 2>&1 ||
            { cat "$work/log" >&2; say "$1: lintian refuses it"; exit 1; }
        mkdir "$work/out"
        mv "$work/upper/build"/*.deb "$work/upper/build"/*.changes "$work/upper/build"/*.buildinfo "$work/out"
        [ -n "${AGAIN:-}" ] || rm -rf "$trees/$1-package-"*
        mv "$work/out" "$built"
    fi
    mkdir -p "$packages"
    rm -f "$packages"/*"$mark"*
    cp "$built"/* "$packages"
    [ -z "${AGAIN:-}" ] || rm -rf "$built"
    ls "$packages"/*"$mark"*.deb
}

case ${1:-} in
    --one) build "$2"; exit ;;
    "") set -- bookworm trixie noble ;;
esac
[ "$(id -u)" = 0 ] || { say "only root can make the trees"; exit 1; }
mkdir -p "$trees"
# At the same time: most of it is the work of one core.
builds="" failed=0
# A shell has its background jobs ignore an interrupt.
trap 'kill $builds; exit 130' INT TERM
for suite in "$@"; do
    "debian/${0##*/}" --one "$suite" &
    builds="$builds $!"
done
for one in $builds; do wait "$one" || failed=1; done
exit "$failed"
