#!/bin/sh
# Runs the package's own tests (packaging/debian/tests) by autopkgtest(1), inside a bare Debian of its own under build/:
# the `null` runner's testbed is that Debian. What it says is kept in build/autopkgtest/SUITE. Needs root, and port 25.
#
#   sh packaging/autopkgtest.sh [bookworm | trixie]
set -eu

. "$(dirname "$0")/bare.sh"
bare "${1:-bookworm}" "${1:-bookworm}-autopkgtest"
package

say "autopkgtest"
apt update
apt install --no-install-recommends autopkgtest dpkg-dev
mkdir -p "$chroot/srv/source"
cp -a "$root/packaging/debian" "$chroot/srv/source/debian"

say "the tests"
kept=$root/build/autopkgtest/$suite
rm -rf "$kept"
mkdir -p "$(dirname "$kept")"
code=0
echo "postfix postfix/main_mailer_type select Local only" | inside debconf-set-selections
# It is thrown away like a container, which is what the restriction asks for.
inside autopkgtest --output-dir /srv/output --ignore-restrictions=isolation-container \
    --no-built-binaries "$name" /srv/source -- null || code=$?
cp -a "$chroot/srv/output" "$kept"
say "kept in build/autopkgtest/$suite"
cat "$kept/summary"
# 2: a test was skipped. The one of restarts needs systemd as process 1, and runs in packaging/try-restart.sh.
[ "$code" = 0 ] || [ "$code" = 2 ]
