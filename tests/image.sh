#!/bin/sh
# `./run image [SUITE]`: the image localhost/gatewayd of Containerfile, built by buildah on a base that debootstrap made.
# No registry of images is asked. Root. IMAGES: where buildah keeps them, instead of its own place.
set -eu
cd "$(dirname "$0")/.."
suite=${1:-bookworm}
[ "$(id -u)" = 0 ] || { echo "image: only root can build it" >&2; exit 1; }

buildah() {
    command buildah ${IMAGES:+--root "$IMAGES/root" --runroot "$IMAGES/run"} "$@"
}

base=localhost/gatewayd-base:$suite
if ! buildah inspect --type image "$base" >/dev/null 2>&1; then
    tree=$(tests/tree.sh make "$suite")
    made=$(buildah from scratch)
    trap 'buildah rm "$made" >/dev/null' EXIT
    buildah add --quiet "$made" "$tree" / >/dev/null
    buildah commit --quiet "$made" "$base" >/dev/null
    trap - EXIT
    buildah rm "$made" >/dev/null
fi
before=$(buildah images --quiet --no-trunc localhost/gatewayd 2>/dev/null || true)
# chroot: also where no container can be started, as in another container. pip trusts whom this host trusts.
trusted=/etc/ssl/certs/ca-certificates.crt
buildah build --isolation chroot --layers --build-arg "BASE=$base" --volume "$trusted:$trusted:ro" \
    --tag localhost/gatewayd .
# What a build before this one left behind.
[ "$before" = "$(buildah images --quiet --no-trunc localhost/gatewayd)" ] || buildah rmi $before >/dev/null 2>&1 || true
