# Sourced by try.sh and its like: a bare Debian in a directory under build/try, to install the package in. Needs root.
#
#   . packaging/bare.sh; bare SUITE NAME      makes build/try/NAME anew; then `inside COMMAND…`, `apt install …`
#
# shellcheck shell=sh

root=$(cd "$(dirname "$0")/.." && pwd)
mirror=${MIRROR:-http://deb.debian.org/debian}

say() { printf '\n== %s\n' "$*"; }
fail() { printf '%s: %s\n' "$(basename "$0" .sh)" "$*" >&2; exit 1; }
inside() { DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot "$chroot" "$@"; }
apt() { inside apt-get -y -q -o APT::Sandbox::User=root "$@"; }

# The newest package that `make deb` left, at /srv in there.
package() {
    deb=$(find "$root/build" -maxdepth 1 -name 'postmeter_*_all.deb' | sort | tail -n 1)
    [ -n "$deb" ] || fail "no package in build/: make deb"
    cp "$deb" "$chroot/srv/"
    name=/srv/$(basename "$deb")
}

unmount_bare() {
    for place in dev/pts dev proc; do
        if mountpoint -q "$chroot/$place"; then umount "$chroot/$place"; fi
    done
}

bare() {
    suite=$1
    chroot=$root/build/try/$2
    tar=$root/build/try/$suite.tar
    trap unmount_bare EXIT
    mkdir -p "$root/build/try"
    if [ ! -e "$tar" ]; then
        say "debootstrap $suite"
        rm -rf "$chroot"
        debootstrap --variant=minbase --include=systemd,systemd-sysv,procps "$suite" "$chroot" "$mirror"
        tar cf "$tar.new" -C "$chroot" . && mv "$tar.new" "$tar"
    fi
    unmount_bare
    rm -rf "$chroot"
    mkdir -p "$chroot"
    tar xf "$tar" -C "$chroot"
    # What reaches the mirror from here reaches it from there.
    cp /etc/apt/apt.conf.d/* "$chroot/etc/apt/apt.conf.d/" 2>/dev/null || true
    cp /etc/resolv.conf /etc/hosts "$chroot/etc/" 2>/dev/null || true
    printf '#!/bin/sh\nexit 101\n' >"$chroot/usr/sbin/policy-rc.d"
    chmod 755 "$chroot/usr/sbin/policy-rc.d"
    mount -t proc proc "$chroot/proc"
    mount --bind /dev "$chroot/dev"
}
