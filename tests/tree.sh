#!/bin/sh
# Trees of other distributions, for `./run trees` and `./run host`. Root.
#   tree.sh make SUITE                  prints $TREES/SUITE-base, and makes it first if it is not there: a host as
#                                       debootstrap leaves it, with systemd, nftables and Python; nobody writes to it
#   tree.sh in TREE COMMAND...          the command with the tree as its root, on this host's network
#   tree.sh over BASE DIR COMMAND...    the same on BASE; the changes go to DIR, which is laid over it (and DIR.work)
set -eu
trees=${TREES:-/var/tmp/gatewayd-trees}
debian=/usr/share/keyrings/debian-archive-keyring.gpg
ubuntu=usr/share/keyrings/ubuntu-archive-keyring.gpg
packages=ca-certificates,dbus,iproute2,kmod,nftables,procps,python3,systemd-sysv

# bootstrap SUITE DIRECTORY
bootstrap() {
    case $1 in
        bookworm | trixie)
            debootstrap --variant=minbase --keyring="$debian" --include="$packages" \
                "$1" "$2" http://deb.debian.org/debian
            ;;
        # By Debian 13's debootstrap and keys: Debian 12 has neither for it.
        noble)
            helper=$trees/.debootstrap
            "$0" over "$("$0" make trixie)" "$helper" apt-get install -qq --no-install-recommends \
                debootstrap ubuntu-archive-keyring
            DEBOOTSTRAP_DIR=$helper/usr/share/debootstrap sh "$helper/usr/sbin/debootstrap" \
                --variant=minbase --keyring="$helper/$ubuntu" --components=main,universe \
                --include="$packages" "$1" "$2" http://archive.ubuntu.com/ubuntu
            ;;
        *)
            echo "tree: bookworm, trixie or noble, not $1" >&2
            return 1
            ;;
    esac
}

make_base() {
    base=$trees/$1-base
    mkdir -p "$trees"
    exec 9>"$trees/.$1.lock"
    flock 9
    if [ ! -d "$base" ]; then
        rm -rf "$base.new"
        # Not in the order of a pipe: its exit status counts.
        bootstrap "$1" "$base.new" 9>&- >"$trees/$1-base.log" 2>&1 ||
            { tail -3 "$trees/$1-base.log" >&2; return 1; }
        : >"$base.new/etc/machine-id"
        echo gateway >"$base.new/etc/hostname"
        rm -f "$base.new"/var/cache/apt/archives/*.deb
        mv "$base.new" "$base"
    fi
    echo "$base"
}

# enter TREE COMMAND...: in a mount namespace of our own. It becomes the root of that: in a mere chroot no user namespace
# can be made.
enter() {
    cd "$1"
    shift
    mount -t proc proc proc
    mount --rbind /sys sys
    mount --rbind /dev dev
    mount -t tmpfs tmpfs run
    mkdir run/oldroot
    cp /etc/resolv.conf /etc/ssl/certs/ca-certificates.crt run
    mount --bind run/resolv.conf etc/resolv.conf
    pivot_root . run/oldroot
    # PIP_CERT: whom this host trusts.
    exec chroot . /usr/bin/env -i HOME=/root LANG=C.UTF-8 TERM=dumb DEBIAN_FRONTEND=noninteractive \
        PIP_CERT=/run/ca-certificates.crt PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        sh -euc 'umount -l /run/oldroot; cd /root; exec "$@"' sh "$@"
}

[ "$(id -u)" = 0 ] || { echo "tree: only root can make trees" >&2; exit 1; }
command=$1
shift
case $command in
    make)
        make_base "$@"
        ;;
    in | over)
        # Again, in a mount namespace of its own.
        exec unshare --mount --propagation private "$0" ".$command" "$@"
        ;;
    .in | .over)
        tree=$1 root=$trees/.root
        shift
        mkdir -p "$root"
        if [ "$command" = .in ]; then
            mount --bind "$tree" "$root"
        else
            mkdir -p "$1" "$1.work"
            mount -t overlay overlay -o "lowerdir=$tree,upperdir=$1,workdir=$1.work" "$root"
            shift
        fi
        enter "$root" "$@"
        ;;
esac
