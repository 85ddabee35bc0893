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
    # debootstrap takes its own directory away when all is done.
    [ ! -d "$trees/$1/etc" ] || [ -e "$trees/$1/debootstrap" ] || return 0
    needed=ca-certificates,git,python3,systemd
    keys=usr/share/keyrings
    case $1 in
        bookworm)
            debootstrap --variant=minbase --keyring="/$keys/debian-archive-keyring.gpg" --include="$needed" \
                "$1" "$trees/$1" http://deb.debian.org/debian
            ;;
        trixie)
            debootstrap --variant=minbase --keyring="/$keys/debian-archive-keyring.gpg" \
                --include="$needed,debootstrap,ubuntu-archive-keyring" \
                "$1" "$trees/$1" http://deb.debian.org/debian
            ;;
        # By Debian 13's debootstrap and keys: Debian 12 has neither for it.
        noble)
            make_tree trixie || return 1
            DEBOOTSTRAP_DIR=$trees/trixie/usr/share/debootstrap sh "$trees/trixie/usr/sbin/debootstrap" \
                --variant=minbase --keyring="$trees/trixie/$keys/ubuntu-archive-keyring.gpg" \
                --components=main,universe --include="$needed" \
                "$1" "$trees/$1" http://archive.ubuntu.com/ubuntu
            ;;
        *)
            echo "trees: bookworm, trixie or noble, not $1" >&2
            return 1
            ;;
    esac
}

# in_tree SUITE COMMAND...: with the tree as root of a mount namespace. In a mere chroot no user namespace can be made.
in_tree() {
    tree=$trees/$1
    shift
    cp /etc/resolv.conf "$tree/etc/resolv.conf"
    # Whom this host trusts, for pip.
    cp /etc/ssl/certs/ca-certificates.crt "$tree/etc/ssl/certs/host.crt"
    # shellcheck disable=SC2016 # for the inner shells
    unshare --mount --propagation private sh -euc '
        mount --bind "$1" "$1"
        cd "$1"
        shift
        mkdir -p oldroot
        mount -t proc proc proc
        mount --rbind /sys sys
        mount --rbind /dev dev
        mount -t tmpfs tmpfs run
        pivot_root . oldroot
        exec chroot . /usr/bin/env -i HOME=/root LANG=C.UTF-8 TERM=dumb PIP_CERT=/etc/ssl/certs/host.crt \
            PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
            sh -euc "umount -l /oldroot; cd /root/gatewayd; exec \"\$@\"" sh "$@"
    ' sh "$tree" "$@"
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
