#!/bin/sh
# Builds the Debian package from this tree, in build/deb-src, and leaves it in build/.
#
#   sh packaging/build-deb.sh          DEB_BUILD_OPTIONS=nocheck leaves the tests out
#
# What is built is a copy with packaging/debian as its debian/, every file as old as the last entry of the changelog:
# two builds of the same tree give the same bytes.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
tree=$root/build/deb-src/postmeter
sources="setup.cfg pyproject.toml MANIFEST.in README.md CHANGELOG.md CONTRIBUTING.md LICENSE Makefile
    milter packaging contrib docs tests"

# Debian's own python3 and no other: what is found first is what the package is built and tested with.
PATH=/usr/sbin:/usr/bin:/sbin:/bin
export PATH

rm -rf "$root/build/deb-src"
mkdir -p "$tree"
# shellcheck disable=SC2086 # a list of words
(cd "$root" && tar cf - --exclude=__pycache__ --exclude='*.egg-info' --exclude='*.pyc' $sources) | tar xf - -C "$tree"
cp -a "$tree/packaging/debian" "$tree/debian"

SOURCE_DATE_EPOCH=$(cd "$tree" && dpkg-parsechangelog -S Timestamp)
export SOURCE_DATE_EPOCH
chmod -R u=rwX,go=rX "$tree"
find "$tree" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +

rm -f "$root"/build/postmeter_*
(cd "$tree" && dpkg-buildpackage --build=binary --no-sign)
mv "$root"/build/deb-src/postmeter_*.deb "$root"/build/deb-src/postmeter_*.changes "$root/build/"
mv "$root"/build/deb-src/postmeter_*.buildinfo "$root/build/"
