#!/bin/sh
# Tries restarts of the package that `make deb` built under a real systemd, in a bare Debian in a directory of its own
# under build/: process 1 of namespaces (unshare(1)) with a network, a mount table and a cgroup that nobody else sees.
# packaging/debian/tests/restart runs in it. Needs root and a cgroup2 file system.
#
#   sh packaging/try-restart.sh [bookworm | trixie]
set -eu

. "$(dirname "$0")/bare.sh"
group=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)/postmeter-try-$$
first=

# In the namespaces of the systemd that runs there.
booted() { nsenter --all --target "$first" -- env -i LC_ALL=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"; }

clean() {
    if [ -n "$first" ]; then
        kill -KILL "$first" 2>/dev/null || true # everything in a process namespace ends with its process 1
    fi
    unmount_bare
    for _ in $(seq 50); do
        [ -d "$group" ] || break
        find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || sleep 0.1
    done
}

[ -d "${group%/*}" ] || fail "no cgroup2 file system is mounted"
bare "${1:-bookworm}" "${1:-bookworm}-restart"
trap clean EXIT
package
log=$root/build/try/$suite-restart.log

say "install"
echo "postfix postfix/main_mailer_type select Local only" | inside debconf-set-selections
apt update
apt install --no-install-recommends postfix curl "$name"
rm "$chroot/usr/sbin/policy-rc.d"
unmount_bare

dpkg-deb -R "$deb" "$chroot/srv/newer"
sed -i 's/^Version: .*/&+1/' "$chroot/srv/newer/DEBIAN/control"
dpkg-deb -b "$chroot/srv/newer" "$chroot/srv/newer.deb" >/dev/null
cp "$root/packaging/debian/tests/restart" "$chroot/srv/"

say "boot"
cat >"$chroot/srv/boot" <<'BOOT'
set -e
root=$1
mount --make-rprivate /
mount --bind "$root" "$root"
cd "$root"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
for place in run tmp dev; do mount -t tmpfs tmpfs "$place" -o mode=755; done
chmod 1777 tmp
for device in null:3 zero:5 full:7 random:8 urandom:9; do mknod -m 666 "dev/${device%:*}" c 1 "${device#*:}"; done
mknod -m 666 dev/tty c 5 0
mkdir dev/pts dev/shm
mount -t devpts devpts dev/pts -o newinstance,ptmxmode=666
mount -t tmpfs tmpfs dev/shm -o mode=1777
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
for number in 0:stdin 1:stdout 2:stderr; do ln -s "/proc/self/fd/${number%:*}" "dev/${number#*:}"; done
mkdir -p .outside
pivot_root . .outside
umount -l /.outside
exec env -i container=try PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system --show-status=no
BOOT
mkdir "$group"
(
    sh -c 'echo $PPID' >"$group/cgroup.procs"
    exec setsid unshare --mount --pid --net --uts --ipc --cgroup --fork --kill-child sh "$chroot/srv/boot" "$chroot"
) >"$log" 2>&1 &
shell=$!
for _ in $(seq 100); do
    first=$(pgrep -P $shell || true)
    if [ -n "$first" ] && [ "$(cat "/proc/$first/comm")" = systemd ]; then break; fi
    sleep 0.1
done
[ -n "$first" ] || fail "systemd did not start: $(cat "$log")"
for _ in $(seq 300); do
    state=$(booted systemctl is-system-running 2>/dev/null || true)
    if [ "$state" = running ] || [ "$state" = degraded ]; then break; fi
    sleep 0.2
done
booted systemctl --version | head -1
booted systemctl --no-legend --failed
[ "$state" = running ] || [ "$state" = degraded ] || fail "systemd is $state"

say "restarts under load"
booted python3 /srv/restart /srv/newer.deb

say "what the timers start"
cat >"$chroot/etc/postmeter/postmeter.yaml" <<'YAML'
mode: enforce
quota:
  limits: [1 message/minute]
  over: hold
report:
  to: [somebody@example.net]
YAML
booted systemctl restart postmeter-milter postmeter-books
booted smtp-source -m 2 -f a@example.com -t b@example.net 127.0.0.1:25
booted systemctl start postmeter-report.service
for _ in $(seq 20); do
    booted systemctl start postmeter-release.service
    if booted journalctl --quiet -u postmeter-release | grep -q '1 released'; then break; fi
    sleep 5
done
booted journalctl --no-pager --quiet --output=cat -u postmeter-release -u postmeter-report
booted journalctl --quiet -u postmeter-release | grep -q '1 released' || fail "held mail was not let go"
booted journalctl --quiet -t postfix/qmgr | grep -q 'from=<postmaster@' || fail "no report was sent"

say "analysis"
booted systemd-analyze verify --man=no postmeter-milter.service postmeter-web.service postmeter-books.service \
    postmeter-release.timer postmeter-report.timer
booted systemd-analyze security --no-pager | awk 'NR == 1 || /postmeter/'

say "remove"
booted env DEBIAN_FRONTEND=noninteractive apt-get -y -q remove postmeter
left=$(booted systemctl list-units --no-legend 'postmeter*')
[ -z "$left" ] || fail "left behind: $left"
printf '\ntry-restart: %s: all well\n' "$suite"
