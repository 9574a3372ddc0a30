#!/bin/sh
# Tries the package that `make deb` built in a bare Debian, in a directory of its own under build/: installs it with
# Postfix, sends mail through both, upgrades, removes, reinstalls and purges it. Needs root.
#
#   sh packaging/try.sh [bookworm | trixie]
#
# Without systemd as process 1: daemons are started by hand here; packaging/try-restart.sh has the units run.
set -eu

. "$(dirname "$0")/bare.sh"
bare "${1:-bookworm}" "${1:-bookworm}"
package

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

say "shells find what they complete"
apt install --no-install-recommends bash-completion fish zsh
[ "$(inside zsh -fc 'autoload -Uz compinit && compinit -D && print $_comps[postmeter]')" = _postmeter ] || fail "zsh does not"
[ "$(inside fish -c 'complete -C "postmeter quo"' | cut -f 1)" = quota ] || fail "fish does not"
inside bash -c '. /usr/share/bash-completion/bash_completion
    _completion_loader postmeter 2>/dev/null || _comp_load postmeter; complete -p postmeter' || fail "bash does not"

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
