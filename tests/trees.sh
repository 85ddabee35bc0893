#!/bin/sh
# `./run trees [SUITE...]`: the demo, and the tests that the system's nft, Python and systemd have a part in, in trees of
# the distributions that README names. What is committed is what is tried. Root; about 1.5 GB a tree, 20 minutes each
# the first time. The kernel is this host's. TREES says where they are kept; a tree that is there is used again.
set -eu
cd "$(dirname "$0")/.."
trees=${TREES:-/var/tmp/gatewayd-trees}
[ $# -gt 0 ] || set -- bookworm trixie noble
[ "$(id -u)" = 0 ] || { echo "trees: only root can make them" >&2; exit 1; }

# make_tree SUITE: a small system with Python and git; what else is needed, `./run` installs there.
make_tree() {
    [ ! -d "$trees/$1" ] || return 0
    base=$(tests/tree.sh make "$1") &&
        cp -a --reflink=auto "$base" "$trees/$1.new" &&
        tests/tree.sh in "$trees/$1.new" sh -c 'apt-get update -qq && apt-get install -qq --no-install-recommends git' \
            >"$trees/$1.log" 2>&1 &&
        mv "$trees/$1.new" "$trees/$1"
}

in_tree() {
    tree=$trees/$1
    shift
    # shellcheck disable=SC2016 # for the inner shell
    tests/tree.sh in "$tree" sh -euc 'cd gatewayd; exec "$@"' sh "$@"
}

# try_tree SUITE: one line for each thing; its output is in SUITE.log.
try_tree() {
    copy=$trees/$1/root/gatewayd
    git init -q "$copy" && git -C "$copy" fetch -q "$PWD" HEAD && git -C "$copy" reset -q --hard FETCH_HEAD ||
        return 1
    status=0
    {
        in_tree "$1" ./run demo || status=1
        # shellcheck disable=SC2046 # the words are directories
        in_tree "$1" ./run test -n 2 --dist loadfile tests/golden tests/lab \
            $(printf 'tests/unit/%s ' kernel compile reconcile systemd) || status=1
    } >"$trees/$1.log" 2>&1
    in_tree "$1" sh -c 'nft --version; python3 --version; systemctl --version | head -1' | sed "s/^/$1: /"
    grep -E 'promises were|^=+ .*(passed|failed|error)' "$trees/$1.log" | sed "s/^/$1: /"
    return "$status"
}

mkdir -p "$trees"
failed=0
for suite in "$@"; do
    make_tree "$suite" || { failed=1; continue; }
    try_tree "$suite" || { echo "$suite: FAILED, see $trees/$suite.log"; failed=1; }
done
exit "$failed"
