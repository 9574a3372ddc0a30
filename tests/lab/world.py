"""A host of its own on which postmeter is installed as by its package: for command lines exactly as they are typed.

`python -m tests.lab.world FOLDER LEFT-OUT` runs in namespaces that nobody else sees (unshare(1): mounts, network,
processes), with Postfix in /etc/postfix, its services on their usual ports, the daemons as their users, DNS, and some
mail in the journal. It runs every line of the documents' shell blocks by bash, but those left out (a JSON list), and
prints, as JSON, what each said. All that it writes lies in the folder, which is the caller's to remove.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.lab.client import Client
from tests.lab.dns import NameServer
from tests.lab.documented import DOCUMENTS, Line, shell
from tests.lab.folder import CLONE, for_everybody
from tests.lab.lab import ALICE, letter
from tests.lab.postfix import LOGINS, Postfix
from tests.lab.postgres import Postgres
from tests.lab.product import python_environment
from tests.lab.settings import MAIN_CF
from tests.lab.sink import Sink

CONFIG = Path("/etc/postmeter/postmeter.yaml")
KEYS = Path("/etc/postmeter/keys")
_QUEUE = Path("/var/spool/postfix")
_LISTED = KEYS / "example.com.pm2026a.pem"
_BOUND = 60.0
_MASTER = """\
smtp inet n - n - - smtpd
  -o smtpd_sasl_auth_enable=no
submission inet n - n - - smtpd
  -o syslog_name=postfix/submission
  -o smtpd_sasl_auth_enable=yes
"""
_SETTINGS = {
    "mode": "enforce",
    "quota": {"limits": ["500 recipients/day", "100 recipients/hour"], "over": "hold"},
    "dkim": {"sign": [{"domain": "example.com", "keys": [{"selector": "pm2026a", "file": str(_LISTED)}]}]},
    "tracking": {"url": "https://click.example.com", "bulk_senders": ["newsletter@example.com"], "unsubscribe": True},
    "bounces": {
        "domains": {"example.com": "bounces@example.com"},
        "lmtp": "unix:/var/spool/postfix/postmeter/feedback.sock",
    },
    "suppression": {"observe": False},
    "web": {"robots": "/etc/postmeter/robots.txt"},
    "report": {"to": ["boss@example.com"], "every": "7d"},
    "notify": {"smtp": "127.0.0.1:25", "from": "postmeter@example.com"},
}  # fmt: skip
_SECRETS = """\
openssl rand -hex 32 > /etc/postmeter/tracking.secrets
chown postmeter:postmeter-web /etc/postmeter/tracking.secrets && chmod 0640 /etc/postmeter/tracking.secrets
openssl rand -hex 32 > /etc/postmeter/bounces.secrets
chown postmeter: /etc/postmeter/bounces.secrets && chmod 0600 /etc/postmeter/bounces.secrets
openssl genrsa -out /etc/postmeter/keys/example.com.pm2026a.pem 2048 2> /dev/null
chown -R postmeter: /etc/postmeter/keys && chmod 0700 /etc/postmeter/keys && chmod 0600 /etc/postmeter/keys/*.pem
"""


_OTHERS = """\
mkdir -p /etc/rspamd/local.d /var/lib/rspamd/dkim
cp /etc/postmeter/keys/example.com.pm2026a.pem /var/lib/rspamd/dkim/example.com.dkim.key
echo 'path = "/var/lib/rspamd/dkim/$domain.$selector.key"; allow_username_mismatch = true;' \\
    > /etc/rspamd/local.d/dkim_signing.conf
mkdir -p /etc/opendkim /etc/dkimkeys
cp /etc/postmeter/keys/example.com.pm2026a.pem /etc/dkimkeys/example.com.mail.private
echo 'mail example.com:mail:/etc/dkimkeys/example.com.mail.private' > /etc/opendkim/key.table
echo '*@example.com mail' > /etc/opendkim/signing.table
echo 'KeyTable /etc/opendkim/key.table' >> /etc/opendkim.conf
echo 'SigningTable refile:/etc/opendkim/signing.table' >> /etc/opendkim.conf
"""

# As of a shell of root's; `python3` finds the clone as it would find the package.
_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LC_ALL": "C.UTF-8",
    "PYTHONPATH": str(CLONE / "milter"),
}  # fmt: skip


class World:
    """The host, and what happens on it between two documented lines."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.units = self.folder / "units"
        self.desk = self.folder / "desk"
        self.environment = dict(_ENVIRONMENT)
        self.known: dict[str, str] = {}
        """What stands in a document, and what it is here: ids that nobody can know beforehand."""

    # --- the host

    def mount(self) -> None:
        for name in ("etc", "usr/bin", "usr/sbin", "var/lib", "var/log", "var/spool", "var/backups"):
            upper, work = self.folder / "upper" / name, self.folder / "work" / name
            for path in (upper, work):
                path.mkdir(parents=True)
            options = f"lowerdir=/{name},upperdir={upper},workdir={work}"
            sh(f"mount -t overlay overlay -o {options} /{name}")
        sh("ip link set lo up 2> /dev/null || ifconfig lo up")
        sh("mount -t tmpfs tmpfs /run && mkdir -p /run/lock /run/postgresql && chmod 1777 /run/postgresql")

    def install(self) -> None:
        """What the package brings: program, users, directories, secrets; and what else stands on a desk."""
        self.units.mkdir()
        python, environment = python_environment()
        _program("postmeter", environment, f"{python} -s -P -m postmeter")
        _program("systemctl", {"PYTHONPATH": f"{for_everybody(CLONE)}:{environment['PYTHONPATH']}", "LAB_UNITS": str(
            self.units)}, f"{python} -s -P -m tests.lab.systemctl")  # fmt: skip
        for user in ("postmeter", "postmeter-web"):
            sh(f"id {user} > /dev/null 2>&1 || useradd -r -U -M -d /var/lib/postmeter -s /usr/sbin/nologin {user}")
        for group in ("adm", "systemd-journal"):
            sh(f"groupadd -f -r {group}")
        for name in ("postmeter.tmpfiles", "postmeter-socket.conf"):
            for line in (CLONE / "packaging" / "debian" / name).read_text().splitlines():
                if line.startswith("d "):
                    _, path, mode, user, group, _ = line.split()
                    sh(f"install -d -o {user} -g {group} -m {mode} {path}")
        sh("install -d -o postmeter-web -g postmeter -m 2770 /var/lib/postmeter/spool/hits")
        sh("install -d -o postmeter -g postmeter -m 0700 /etc/postmeter/keys")
        sh(_SECRETS)
        sh(_OTHERS)
        self.desk.mkdir()
        (self.desk / "packaging").symlink_to(CLONE / "packaging")
        shutil.copy(CLONE / "tests/lab/newsletter.eml", self.desk)
        for place in (self.desk, CONFIG.parent):
            shutil.copy(CLONE / "milter/postmeter/tracking/robots.txt", place)
        self.configure(_SETTINGS)
        for name, row in {
            "bounces": 'address,code,error,created_at\nold@example.net,550,gone,"Mon, 02 Nov 2026 10:00:00 UTC"\n',
            "complaints": "address,created_at\nangry@example.net,\n",
            "unsubscribes": "address,tags,created_at\ntired@example.net,*,\n",
        }.items():
            (self.desk / f"{name}.csv").write_text(row)

    def configure(self, settings: object) -> None:
        CONFIG.write_text(yaml.safe_dump(settings, sort_keys=False))

    def start_postfix(self, sink: Sink) -> None:
        settings = {
            "maillog_file": "/var/log/mail.log", "maillog_file_prefixes": "/var", "recipient_delimiter": "+",
            "smtpd_sasl_auth_enable": "no",
        }  # fmt: skip
        postfix = Postfix(
            sink=sink.transport, settings={**MAIN_CF, **settings}, master=[_MASTER], folder=self.folder / "postfix"
        )
        postfix.config, postfix.queue = Path("/etc/postfix"), _QUEUE
        postfix.log_file = Path("/var/log/mail.log")
        postfix.write()
        postfix.start()
        self.environment |= postfix.environment()

    def databases(self, stack: ExitStack) -> dict[str, str]:
        """A Redis and an empty PostgreSQL, and by which variables their administrator's programs find the latter."""
        command = ["redis-server", "--port", "6379", "--save", "", "--dir", str(self.folder)]
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        postgres = stack.enter_context(Postgres())
        for what in ("DATABASE", "ROLE"):
            postgres.sql(f"DROP {what} postmeter", database="postgres")
        return {"PGHOST": str(postgres.folder / "socket"), "PGPORT": str(postgres.port), "PGUSER": "postgres"}

    # --- what has happened on it

    def live(self, sink: Sink) -> None:
        """postmeter attached, a newsletter to bob, a message that came back and that nobody understands."""
        sh("systemctl enable postmeter-web && systemctl start postmeter.target && postmeter attach --yes")
        answer = send("bob@example.net")
        sink.wait_for(b"bob@example.net")
        self.known["4bXk2v1Zqz"] = answer.rpartition(" ")[2]
        sh("printf 'Subject: odd\\n\\nodd\\n' | postmeter feedback --recipient bounces+AAAA@example.com")
        wait_for(lambda: b'status="sent"} 1.0' in sh("curl -fs http://127.0.0.1:9587/metrics"))
        wait_for(lambda: b"-" in sh("postmeter feedback list"))
        self.known["20261122T204925.123456Z-812-3"] = sh("postmeter feedback list").split()[0].decode()

    def before(self, line: str) -> None:
        """What has happened by then, that the line is about."""
        if line.endswith("postmeter run"):
            sh("systemctl stop postmeter.target")
        if line.startswith("postmeter quota release alice@example.com"):
            sh("postmeter quota set alice@example.com '1 messages/day'")
            wait_for(lambda: bool(send("late@example.net")) and b"! " in sh("postqueue -p"))  # held within a second
        if line == "postmeter suppress remove --since 2h --provider Google":
            row = f"gone@example.net,everywhere,bounced,{int(time.time())},,1,Google,"
            (self.desk / "google.csv").write_text(f"address,scope,reason,since,until,count,provider,evidence\n{row}\n")
            sh(f"postmeter suppress import {self.desk}/google.csv")

    def after(self, line: str) -> None:
        """What a person does by hand then, or what the next line waits for."""
        if line.endswith("postmeter run"):
            sh("systemctl start postmeter.target")
        if line == "postmeter detach":
            sh("postmeter attach --yes")
        if line == "postmeter quota release alice@example.com --delete":
            sh("postmeter quota set alice@example.com --clear")
        if line == "postmeter dkim check example.com":
            self.configure({**_SETTINGS, "dkim": {"sign": [{"domain": "example.com", "keys": "auto"}]}})
            sh("systemctl reload postmeter-milter postmeter-books")

    # --- its commands

    def run(self, block: list[Line]) -> Iterator[dict[str, object]]:
        """Each line by a bash of its own, in the directory where the one before it ended; on a terminal, with yes."""
        place = str(self.desk)
        (self.folder / "place").touch()
        (self.folder / "place").chmod(0o666)
        for line in block:
            text = line.text
            for shown, here in self.known.items():
                text = text.replace(shown, here)
            self.before(line.command)
            script = f"cd '{place}'; set -o pipefail; {text}\ncode=$?; pwd > {self.folder}/place; exit $code"
            code = self._type(script, serves=line.command.endswith("postmeter run"))
            place = (self.folder / "place").read_text().strip() or place
            said = (self.folder / "said").read_text("utf-8", "replace")
            yield {"line": str(line), "code": code, "said": said[-4000:]}
            self.after(line.command)

    def _type(self, script: str, *, serves: bool) -> int:
        """Its exit code. Whoever is asked for something answers yes; what serves is stopped once it does."""
        terminal, keyboard = os.openpty()
        with (self.folder / "said").open("wb") as said:
            running = subprocess.Popen(
                ["/bin/bash", "-c", script], env=self.environment, stdin=keyboard, stdout=said, stderr=said,
                start_new_session=True, user="postmeter" if serves else None, group="postmeter" if serves else None,
                extra_groups=["postfix"] if serves else None,
            )  # fmt: skip
        for _ in range(2400):  # two minutes at most
            if running.poll() is not None:
                break
            os.write(terminal, b"yes\n")  # what was typed before a password is asked for does not count
            time.sleep(0.05)
            if serves and sh("curl -s http://127.0.0.1:9587/healthz http://127.0.0.1:8587/healthz || true"):
                for child in Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split():
                    os.kill(int(child), signal.SIGTERM)
                running.wait(_BOUND)
        os.close(terminal)
        os.close(keyboard)
        running.kill()
        return running.wait()


def send(recipient: str) -> str:
    """A newsletter of alice's; what the server said to it at last."""
    with Client(587, login=(ALICE, LOGINS[ALICE])) as client:
        fields = ["X-Campaign: spring", "List-Id: <news.example.com>"]
        message = letter("<p>News.</p>\r\n", html=True, fields=fields)
        return client.send(message, mail_from=ALICE, rcpt_to=[recipient]).text


class _Published(dict[str, str]):
    """TXT records of whatever keys lie there now: an administrator who publishes at once."""

    def __contains__(self, name: object) -> bool:
        return name in self._found() or super().__contains__(name)

    def __getitem__(self, name: str) -> str:
        return self._found().get(name) or super().__getitem__(name)

    def __iter__(self) -> Iterator[str]:
        return iter({**self._found(), **dict(self.items())})

    def _found(self) -> dict[str, str]:
        found = {f"{path.stem}._domainkey.{path.parent.name}": path for path in KEYS.glob("*/*.pem")}
        found["pm2026a._domainkey.example.com"] = _LISTED
        return {name: _record(path, path.stat().st_mtime_ns) for name, path in found.items() if path.exists()}


@cache  # an RSA key takes a twentieth of a second to read
def _record(path: Path, when: int) -> str:
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    public, encoding = key.public_key(), serialization.Encoding
    if isinstance(key, rsa.RSAPrivateKey):
        raw = public.public_bytes(encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        return f"v=DKIM1; k=rsa; p={base64.b64encode(raw).decode()}"
    raw = public.public_bytes(encoding.Raw, serialization.PublicFormat.Raw)
    return f"v=DKIM1; k=ed25519; p={base64.b64encode(raw).decode()}"


def _program(name: str, environment: dict[str, str], command: str) -> None:
    exports = "".join(f"export {key}='{value}'\n" for key, value in environment.items() if key != "PATH")
    path = Path("/usr/bin") / name
    path.unlink(missing_ok=True)
    path.write_text(f'#!/bin/sh\n{exports}exec {command} "$@"\n')
    path.chmod(0o755)


def sh(script: str) -> bytes:
    """By a shell that stops at the first line that fails."""
    done = subprocess.run(["/bin/sh", "-ec", script], env=_ENVIRONMENT, capture_output=True, check=False, timeout=120)
    if done.returncode != 0:
        raise SystemExit(f"{script}: {done.stderr.decode()}{done.stdout.decode()}")
    return done.stdout


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + _BOUND
    while not condition():
        if time.monotonic() > until:
            raise SystemExit("never came true:\n" + Path("/var/log/mail.log").read_text())
        time.sleep(0.1)


def main(folder: Path, left_out: set[str]) -> None:
    world = World(folder)
    world.mount()
    with ExitStack() as stack:
        sink = stack.enter_context(Sink())
        dns = stack.enter_context(NameServer(port=53))
        dns.records = _Published()
        Path("/etc/resolv.conf").write_text("nameserver 127.0.0.1\n")
        world.install()
        world.start_postfix(sink)
        world.environment |= world.databases(stack)
        world.live(sink)
        for document in DOCUMENTS:
            for block in shell(document):
                for result in world.run([line for line in block if line.command not in left_out]):
                    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), set(json.loads(sys.argv[2])))
    os._exit(0)  # whatever still runs ends with the namespace
