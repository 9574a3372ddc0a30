#!/bin/sh
# Tries the image without any container engine: carries out the lines of the Containerfile in a bare Debian, and runs it
# as process 1 of a namespace, with a user, volumes and signals as an engine would; beside it a second bare Debian has a
# Postfix that is attached by hand, and mail goes through both. Needs root, the mirror, and `make deb` before.
#
#   sh packaging/container/try.sh
set -eu

here=$(cd "$(dirname "$0")" && pwd)
. "$here/../bare.sh"
root=$(cd "$here/../.." && pwd)
volumes=$root/build/try/volumes
image=$root/build/try/image
postfix=$root/build/try/image-postfix

instructions() { sed -e '/^ *#/d' -e ':a' -e '/\\$/{N;s/\\\n//;ba' -e '}' "$here/Containerfile"; }
words() { instructions | sed -n "s/^$1 //p" | tr -d '[]",'; }

build() {
    from=$(words FROM)
    suite=${from#debian:}
    bare "${suite%-slim}" image
    apt update
    instructions >"$root/build/try/instructions"
    while read -r word rest; do
        case $word in
        RUN)
            say "RUN $rest"
            inside sh -euc "$rest" </dev/null
            ;;
        COPY)
            say "COPY $rest"
            # shellcheck disable=SC2086 # a list of words with patterns
            (cd "$root" && cp ${rest% *} "$chroot${rest##* }")
            ;;
        esac
    done <"$root/build/try/instructions"
    [ -z "$(find "$chroot/etc/postmeter" -name '*.secrets')" ] || fail "there are secrets in the image"
    unmount_bare
}

build_postfix() {
    bare "${suite%-slim}" image-postfix
    apt update
    echo "postfix postfix/main_mailer_type select Local only" | inside debconf-set-selections
    apt install --no-install-recommends postfix
    inside useradd reader
    echo '127.0.0.1 localhost postmeter' >"$chroot/etc/hosts"
    unmount_bare
}

# As docs/containers.md has it: the lines for main.cf, no chroot, for there is no /etc/hosts in it, and a log file on
# the volume that both have.
attach() {
    cat "$here/main.cf.fragment" >>"$postfix/etc/postfix/main.cf"
    in_postfix postconf -F '*/*/chroot=n'
    in_postfix postconf -e 'mydestination=example.net' 'inet_interfaces=loopback-only' \
        'smtpd_milters=$postmeter_milter' 'milter_macro_daemon_name=ORIGINATING'
    install -m 0640 -g 890 /dev/null "$volumes/log/mail.log"
}

mount_all() {
    mkdir -p "$image/var/log/postfix" "$postfix/var/log/postfix"
    mount --bind "$volumes/etc" "$image/etc/postmeter"
    mount --bind "$volumes/lib" "$image/var/lib/postmeter"
    mount --bind "$volumes/log" "$image/var/log/postfix"
    mount --bind "$volumes/log" "$postfix/var/log/postfix"
    for each in "$image" "$postfix"; do
        mount --bind /dev "$each/dev"
        mount -t proc proc "$each/proc"
    done
}

in_image() { chroot --userspec="$user" --groups= "$image" env -i PATH=/usr/local/bin:/usr/bin:/bin "$@"; }
in_postfix() { PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot "$postfix" "$@"; }

wait_for() {
    for _ in $(seq 150); do
        if eval "$1" >/dev/null 2>&1; then return 0; fi
        sleep 0.2
    done
    cat "$volumes/said" >&2
    fail "never came true: $1"
}

# Whether there is a figure above 0 that begins so.
counted() { in_image python3 -c "
import re, sys, urllib.request
page = urllib.request.urlopen('http://127.0.0.1:9587/metrics').read().decode()
sys.exit(not re.search(r'^$1.*[}] [1-9]', page, re.MULTILINE))"; }

send() { in_image python3 - <<'PYTHON'
import smtplib
with smtplib.SMTP("127.0.0.1", 25, timeout=60) as client:
    client.sendmail("a@example.com", ["reader@example.net"], b"From: a@example.com\r\nTo: b\r\nSubject: x\r\n\r\nx\r\n")
PYTHON
}

# In namespaces of its own: nobody else's ports are touched, and all mounts end with it.
run() {
    user=$(words USER)
    command="$(words ENTRYPOINT) $(words CMD)"
    ip link set lo up
    mount_all
    in_image postmeter dkim new example.com >/dev/null
    printf 'dkim: {sign: [{domain: example.com, keys: auto}], check_every: 0}\n' >>"$volumes/etc/postmeter.yaml"
    in_image postmeter check-config

    say "$command, as process 1"
    # shellcheck disable=SC2086
    unshare --pid --fork --kill-child sh -c 'mount -t proc proc "$0/proc"; exec chroot --userspec="$@"' "$image" \
        "$user" --groups= "$image" env -i PATH=/usr/local/bin:/usr/bin:/bin $command >"$volumes/said" 2>&1 &
    runner=$!
    wait_for 'in_image healthy'
    first=$(cat "/proc/$runner/task/$runner/children")

    say "mail through a Postfix of another container"
    attach
    in_postfix postfix start
    wait_for send
    wait_for 'counted "postmeter_messages_total.*result=.observed"'
    wait_for 'counted "postmeter_deliveries_total.*status=.sent"'

    say "enforce, by SIGUSR1"
    sed -i 's/^mode: observe/mode: enforce/' "$volumes/etc/postmeter.yaml"
    # shellcheck disable=SC2086
    kill -USR1 $first
    wait_for 'send; grep -q "^DKIM-Signature:.* d=example.com;" "$postfix/var/mail/reader"'
    wait_for 'counted "postmeter_messages_total.*result=.accepted"'

    say "healthy, and not when the milter is not to be seen"
    in_image healthy
    if in_image healthy http://127.0.0.1:1/metrics; then fail "healthy without books"; fi

    say "stop"
    in_postfix postfix stop || true
    # shellcheck disable=SC2086
    kill -TERM $first
    code=0
    wait "$runner" || code=$?
    [ "$code" = 0 ] || { cat "$volumes/said"; fail "SIGTERM ended it with $code"; }
    printf '\ntry: container: all well\n'
}

if [ "${1:-}" = run ]; then
    # unshare's child ends with it (--kill-child).
    trap 'in_postfix postfix stop 2>/dev/null || true; [ -z "${runner:-}" ] || kill -KILL "$runner" 2>/dev/null || true' EXIT
    run
    exit 0
fi
build
build_postfix
rm -rf "$volumes"
mkdir -p "$volumes/lib" "$volumes/log" "$volumes/etc/keys"
cp "$image/etc/postmeter/postmeter.yaml" "$volumes/etc/"
chown -R 890:890 "$volumes/lib" "$volumes/etc"
exec unshare --net --mount --propagation private sh "$0" run
