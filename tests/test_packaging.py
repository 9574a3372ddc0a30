"""What the Debian package is made of fits together: units, users, files, configuration, man pages.

That it installs, passes mail and goes away again is shown by packaging/try.sh, in a bare Debian of its own.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from configparser import RawConfigParser
from pathlib import Path

import pytest

from postmeter import __version__
from postmeter.cli.main import COMMANDS, main
from postmeter.config.load import load
from postmeter.config.schema import Config

ROOT = Path(__file__).resolve().parents[1]
PACKAGING = ROOT / "packaging"
DEBIAN = PACKAGING / "debian"
UNITS = sorted(path for path in (PACKAGING / "systemd").iterdir() if path.suffix != ".conf")
DAEMONS = ("milter", "web", "books")
_EXPOSURE = 1.5
SCRIPTS = (
    "../build-deb.sh", "../bare.sh", "../try.sh", "../try-restart.sh", "../autopkgtest.sh", "../container/try.sh",
)  # fmt: skip

needs_systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd-analyze (Debian: systemd)")


def settings(path: Path) -> RawConfigParser:
    """A unit's sections; a key that is written twice has its last value here."""
    read = RawConfigParser(strict=False, delimiters=("=",), comment_prefixes=("#",), interpolation=None)
    read.optionxform = str  # type: ignore[assignment,method-assign]
    read.read_string(path.read_text("utf-8"))
    return read


def service(daemon: str) -> Path:
    return PACKAGING / "systemd" / f"postmeter-{daemon}.service"


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_a_unit_starts_what_the_program_has(unit: Path) -> None:
    for line in re.findall(r"^Exec\w+=/usr/bin/postmeter (.*)$", unit.read_text(), re.MULTILINE):
        assert line.split()[0] in dict(COMMANDS), line
        assert main([line.split()[0], "--help"]) == 0


@needs_systemd
def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path) -> None:
    """Only the program itself, which is not installed here, may be missing; what cannot be known is said of `man:`."""
    for unit in UNITS:
        text = unit.read_text().replace("/usr/bin/postmeter", sys.executable)
        (tmp_path / unit.name).write_text(re.sub(r"^(Documentation|User|Group)=.*\n", "", text, flags=re.MULTILINE))
    names = [str(tmp_path / unit.name) for unit in UNITS]
    told = subprocess.run(["systemd-analyze", "verify", "--man=no", *names], capture_output=True, text=True,
                          check=False, env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"})  # fmt: skip
    assert [line for line in told.stderr.splitlines() if "postmeter" in line] == []


@needs_systemd
@pytest.mark.parametrize(("name", "most"), [*((name, _EXPOSURE) for name in (*DAEMONS, "report")), ("release", 2.5)])
def test_a_service_is_exposed_to_little(name: str, most: float) -> None:
    """What lets mail go is root, as postsuper(1) demands."""
    asked = ["systemd-analyze", "security", "--offline=yes", str(service(name))]
    told = subprocess.run(asked, capture_output=True, text=True, check=False)
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", told.stdout)
    assert found, told.stderr
    assert float(found[1]) < most


@pytest.mark.parametrize("daemon", DAEMONS)
def test_a_daemon_says_that_it_is_there_and_goes_with_the_target(daemon: str) -> None:
    unit = settings(service(daemon))
    wanted = {"Type": "notify", "Restart": "always", "RestartPreventExitStatus": "64 78"}
    assert {key: unit["Service"][key] for key in wanted} == wanted
    assert unit["Service"]["WatchdogSec"]
    assert unit["Service"]["ExecReload"] == "/bin/kill -USR1 $MAINPID"
    assert unit["Unit"]["PartOf"] == unit["Install"]["WantedBy"] == "postmeter.target"


@pytest.mark.parametrize("daemon", ["milter", "web"])
def test_a_restart_leaves_the_socket_open_and_the_workers_alone(daemon: str) -> None:
    """What systemd keeps, who is told that it is a restart, and what is not killed: one without the others harms."""
    unit = settings(service(daemon))["Service"]
    assert (unit["FileDescriptorStoreMax"], unit["KillMode"]) == ("1", "process")
    assert '" restart "; then kill -USR2 ${MAINPID}' in unit["ExecStop"]


def test_a_stop_leaves_no_worker_of_an_earlier_parent() -> None:
    """It asks for the kind of the job, as it must not kill them at a restart, nor after a crash, which has no job."""
    assert '" stop "; then systemctl kill --signal=KILL' in settings(service("milter"))["Service"]["ExecStopPost"]


def test_a_stop_is_given_the_time_that_draining_takes() -> None:
    assert int(settings(service("milter"))["Service"]["TimeoutStopSec"].removesuffix("s")) > Config().milter.drain + 10


@pytest.mark.parametrize("name", ["books", "release"])
def test_what_asks_for_the_queue_may_ask_for_addresses(name: str) -> None:
    """postqueue(1) asks the kernel which addresses are its own (netlink(7)), and ends where it may not."""
    assert "AF_NETLINK" in settings(service(name))["Service"]["RestrictAddressFamilies"].split()


def test_only_the_tracking_server_runs_as_its_user() -> None:
    users = {daemon: settings(service(daemon))["Service"]["User"] for daemon in DAEMONS}
    assert users == {"milter": "postmeter", "web": "postmeter-web", "books": "postmeter"}
    made = re.findall(r"^u (\S+)", (DEBIAN / "postmeter.sysusers").read_text(), re.MULTILINE)
    assert set(made) == set(users.values())
    web = settings(service("web"))["Service"]
    assert "SupplementaryGroups" not in web
    assert "/etc/postmeter/keys" in web["InaccessiblePaths"]
    assert web["ReadWritePaths"] == "-/var/lib/postmeter/spool/hits"


def test_the_socket_lies_where_the_configuration_has_it() -> None:
    socket = str(Config().milter.listen).removeprefix("unix:")
    lines = (DEBIAN / "postmeter-socket.conf").read_text()
    assert f"\nd {Path(socket).parent} 2750 postmeter {Config().milter.socket_group} -\n" in lines
    assert str(Path(socket).parent) in settings(service("milter"))["Service"]["ReadWritePaths"]


def test_the_package_begins_by_watching() -> None:
    assert load(DEBIAN / "etc" / "postmeter.yaml") == Config(mode="observe")


@pytest.mark.parametrize("name", ["postmeter.install", "postmeter.docs", "postmeter.examples"])
def test_what_is_installed_is_there(name: str) -> None:
    for line in (DEBIAN / name).read_text().splitlines():
        assert list(ROOT.glob(line.split()[0])), line


def test_every_unit_is_installed_and_known_to_the_maintainer_scripts() -> None:
    install, rules = (DEBIAN / "postmeter.install").read_text(), (DEBIAN / "rules").read_text()
    started = {unit.name for unit in UNITS if settings(unit).has_section("Install")}
    assert set(re.findall(r"postmeter[\w-]*\.(?:service|timer|target)", rules)) == started
    lines = {f"packaging/systemd/postmeter*{unit.suffix} lib/systemd/system" for unit in UNITS}
    assert lines <= set(install.split("\n"))


def test_no_file_of_the_package_is_below_lib() -> None:
    """It is a link to /usr/lib; Debian 13's lintian takes files there for errors, and its dpkg warns at a purge."""
    for name in ("postmeter.links", "postmeter.lintian-overrides"):
        assert not re.search(r"[ \[]lib/", (DEBIAN / name).read_text()), name
    assert "mv debian/postmeter/lib/systemd/system debian/postmeter/usr/lib/systemd/" in (DEBIAN / "rules").read_text()


@pytest.mark.parametrize(("says", "code", "shown"), [("", 0, "clean"), ("E: x: y", 2, "E: x: y"), ("W: z", 0, "W: z")])
def test_what_lintian_says_is_shown_and_fails_make_deb(tmp_path: Path, says: str, code: int, shown: str) -> None:
    asked = subprocess.run(["make", "-n", "deb"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    lintian = tmp_path / "lintian"
    lintian.write_text(f"#!/bin/sh\nprintf '%s' '{says}'\nexit {code}\n")
    lintian.chmod(0o755)
    judge = asked[asked.index("judged=") :]
    path = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    told = subprocess.run(["sh", "-c", judge], cwd=tmp_path, env=path, check=False, capture_output=True, text=True)
    assert told.stdout == f"lintian: {shown}\n"
    assert (told.returncode == 0) == (shown == "clean")


def test_versions_agree() -> None:
    assert (DEBIAN / "changelog").read_text().startswith(f"postmeter ({__version__}) ")


def test_the_package_depends_on_what_the_program_needs() -> None:
    """Each with the version that setup.cfg asks for, under Debian's name."""
    names = {"pymilter": "milter", "dkimpy": "dkim", "pyyaml": "yaml"}
    wanted = RawConfigParser()
    wanted.read(ROOT / "setup.cfg")
    control = (DEBIAN / "control").read_text().partition("Package: postmeter")[2]
    for line in wanted["options"]["install_requires"].lower().split("\n"):
        if line:
            name, _, version = line.partition(" >= ")
            assert f"python3-{names.get(name, name)} (>= {version})" in control, line


@pytest.mark.parametrize(
    "script", ["postmeter.postinst", "postmeter.prerm", "postmeter.postrm", "tests/mail", *SCRIPTS]
)
def test_scripts_are_sh(script: str) -> None:
    subprocess.run(["sh", "-n", str(DEBIAN / script)], check=True)


def test_maintainer_scripts_leave_postfix_alone() -> None:
    for script in ("postmeter.postinst", "postmeter.prerm", "postmeter.postrm"):
        assert "postconf" not in (DEBIAN / script).read_text()


@pytest.mark.parametrize(("main", "master", "told"), [
    ("non_smtpd_milters = $postmeter_milter\n", "", True),
    ("", "  -o smtpd_milters=inet:[::1]:11332,${postmeter_milter}\n", True),
    ("# smtpd_milters = $postmeter_milter\npostmeter_milter = unix:postmeter/milter.sock\n", "", False),
    (None, None, False),
])  # fmt: skip
def test_who_removes_it_while_postfix_is_attached_is_told(
    tmp_path: Path, main: str | None, master: str | None, told: bool
) -> None:
    for name, text in (("main.cf", main), ("master.cf", master)):
        if text is not None:
            (tmp_path / name).write_text(text)
    script = (DEBIAN / "postmeter.prerm").read_text().replace("/etc/postfix", str(tmp_path))
    script = script.replace("/run/systemd/system", str(tmp_path / "none"))
    done = subprocess.run(["sh", "-c", script, "prerm", "remove"], check=True, capture_output=True, text=True)
    assert ("still asks postmeter" in done.stdout) is told
    assert not done.stderr


@pytest.fixture(scope="module")
def manual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pages = tmp_path_factory.mktemp("man")
    path = {**os.environ, "PYTHONPATH": str(ROOT / "milter")}
    subprocess.run([sys.executable, str(PACKAGING / "manpages.py"), str(pages)], check=True, env=path)
    return pages


def test_every_command_has_a_manual_page(manual: Path) -> None:
    pages = {f"postmeter-{word}.1" for word, _ in COMMANDS}
    assert {path.name for path in manual.iterdir()} == pages | {"postmeter.1", "postmeter.yaml.5"}


def test_manual_pages_are_roff_that_nobody_complains_of(manual: Path) -> None:
    """An escape that is none, a request that is none: groff says so, and lintian after it."""
    if not shutil.which("groff"):
        pytest.skip("no groff (Debian: groff-base)")
    for page in sorted(manual.iterdir()):
        read = subprocess.run(["groff", "-man", "-Tutf8", "-K", "utf8", "-ww", "-b", "-z", str(page)],
                              capture_output=True, text=True, check=False)  # fmt: skip
        assert read.stderr == "", page.name


def test_the_manual_page_of_the_configuration_has_every_key(manual: Path) -> None:
    from tests.unit.test_config import all_keys

    text = (manual / "postmeter.yaml.5").read_text().replace("\\-", "-")
    assert {key for key in all_keys() if f"\\fB{key}\\fR" not in text} == set()
