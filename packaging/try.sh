#!/bin/sh
# Tries the package that `make deb` built in a bare Debian, in a directory of its own under build/: installs it with
# Postfix, sends mail through both, upgrades, removes, reinstalls and purges it. Needs root.
#
#   sh packaging/try.sh [bookworm | trixie]
#
# Without systemd as process 1: units are only looked at here (tests/test_packaging.py), daemons are started by hand.
set -eu

suite=${1:-bookworm}
root=$(cd "$(dirname "$0")/.." && pwd)
bare=$root/build/try/$suite.tar
chroot=$root/build/try/$suite
deb=$(ls "$root"/build/postmeter_*_all.deb)
mirror=${MIRROR:-http://deb.debian.org/debian}

say() { printf '\n== %s\n' "$*"; }
fail() { printf 'try: %s\n' "$*" >&2; exit 1; }
inside() { DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot "$chroot" "$@"; }
apt() { inside apt-get -y -q -o APT::Sandbox::User=root "$@"; }

clean() {
    for place in dev/pts dev proc; do
        if mountpoint -q "$chroot/$place"; then umount "$chroot/$place"; fi
    done
}
trap clean EXIT

mkdir -p "$root/build/try"
if [ ! -e "$bare" ]; then
    say "debootstrap $suite"
    rm -rf "$chroot"
    debootstrap --variant=minbase --include=systemd,systemd-sysv,procps "$suite" "$chroot" "$mirror"
    tar cf "$bare.new" -C "$chroot" . && mv "$bare.new" "$bare"
fi
clean
rm -rf "$chroot"
mkdir -p "$chroot"
tar xf "$bare" -C "$chroot"
# What reaches the mirror from here reaches it from there.
cp /etc/apt/apt.conf.d/* "$chroot/etc/apt/apt.conf.d/" 2>/dev/null || true
cp /etc/resolv.conf /etc/hosts "$chroot/etc/" 2>/dev/null || true
printf '#!/bin/sh\nexit 101\n' >"$chroot/usr/sbin/policy-rc.d"
chmod 755 "$chroot/usr/sbin/policy-rc.d"
mount -t proc proc "$chroot/proc"
mount --bind /dev "$chroot/dev"
cp "$deb" "$chroot/srv/"
name=/srv/$(basename "$deb")

say "install without Postfix"
apt update
apt install --no-install-recommends "$name"
[ ! -e "$chroot/var/spool/postfix" ] || fail "the package makes Postfix's queue directory"
inside postmeter --version

say "Postfix comes later"
echo "postfix postfix/main_mailer_type select Local only" | inside debconf-set-selections
apt install --no-install-recommends postfix curl
[ "$(stat -c '%A' "$chroot/var/spool/postfix/postmeter")" = drwxr-s--- ] || fail "the trigger made no socket directory"

say "check-config, as root and as the daemons' user"
inside postmeter check-config
inside runuser -u postmeter -- postmeter check-config

say "mail"
mkdir -p "$chroot/srv/tests"
cp "$root/packaging/debian/tests/mail" "$chroot/srv/tests/"
inside sh /srv/tests/mail

say "upgrade keeps configuration, secrets and journal"
echo '# of the administrator' >>"$chroot/etc/postmeter/postmeter.yaml"
kept() { (cd "$chroot" && sha256sum etc/postmeter/postmeter.yaml etc/postmeter/*.secrets && stat -c '%n %U %a' \
    etc/postmeter/* var/lib/postmeter/journal.db var/lib/postmeter/spool/hits); }
before=$(kept)
rm -rf "$chroot/srv/newer"
inside dpkg-deb -R "$name" /srv/newer
sed -i 's/^Version: .*/&+1/' "$chroot/srv/newer/DEBIAN/control"
inside dpkg-deb -b /srv/newer /srv/newer.deb >/dev/null
apt install /srv/newer.deb
[ "$(kept)" = "$before" ] || fail "an upgrade changed what it should keep: $(kept)"

say "remove keeps them too, and reinstalling finds them"
apt remove postmeter
[ "$(kept)" = "$before" ] || fail "removing took what it should keep"
apt install --allow-downgrades "$name"
[ "$(kept)" = "$before" ] || fail "reinstalling changed what it should keep"

say "purge"
apt purge postmeter
left=$(cd "$chroot" && find etc var/lib var/spool usr lib -iname '*postmeter*' ! -path 'var/lib/dpkg/*' \
    ! -path 'var/lib/systemd/deb-systemd-helper-*')
[ -z "$left" ] || fail "left behind: $left"
printf '\ntry: %s: all well\n' "$suite"
