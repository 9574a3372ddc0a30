"""What the manual pages say beyond the program's own help: a few sentences a command, for who meets it first here.

Text only; `packaging/manpages.py` makes pages of it. What stands in backquotes is set bold.
"""

from __future__ import annotations

MORE = {
    "milter": (
        "Listens on `milter.listen`, where Postfix asks it about every message: `postmeter attach` tells "
        "Postfix so. A parent owns the socket, and forked workers serve it.",
        "SIGUSR1 reloads: a wrong configuration changes nothing and is logged. SIGTERM stops, and finishes "
        "messages in flight for `milter.drain`. SIGHUP stops too, as it does every milter. SIGUSR2, which the "
        "package's unit sends at a restart, ends it at once: systemd keeps the socket for the next one, and the "
        "workers finish their sessions, at most `milter.linger`.",
    ),
    "web": (
        "Needed only where there is a `tracking.url`. It should run as a user of its own, who can read "
        "neither DKIM keys nor the journal; what it sees goes to a spool that `postmeter books` reads. Put a "
        "TLS proxy in front of it, or give it a certificate.",
    ),
    "books": (
        "All that no message waits for: Postfix's log and the spools into the journal, figures at "
        "`metrics.listen`, notices, webhooks, shipping to a database, retention, the watch over DKIM keys.",
        "With `--once` it reads old logs, for messages that the journal knows, and ends.",
    ),
    "run": (
        "Starts `postmeter milter`, `postmeter books` and, where there is a `tracking.url`, `postmeter web`, "
        "starts again what dies, and passes SIGUSR1 and SIGTERM on. Started as root it makes `web.user` of "
        "the tracking server. systemd needs none of it: the package has a unit for each.",
    ),
    "check-config": (
        "Each problem is one line with the file, the line, the key, what is wrong and what to write instead. "
        "Root checks for the user that the daemons run as. Nothing is changed, and DNS is not asked: "
        "`postmeter doctor` does that.",
    ),
    "doctor": (
        "Each finding has a level, what it is about, how it is known, and the command or record that mends "
        "it. Of the levels, `wrong` means that mail is harmed, or that a setting does not do what it says; "
        "`warning` and `note` are to be looked at; `unknown` could not be found out: run it as root, or with "
        "DNS that answers. Nothing is changed.",
        "With `--json` an object with `version` (1) and `findings`, the worst first: each an object of the "
        "strings level, about, what, known and fix.",
    ),
    "attach": (
        "Shows the `postconf` commands and what each value is now, asks, runs them, and reloads Postfix. "
        "Other milters stay before it, in their order. It refuses while nobody answers at the socket, for "
        "clients would get 451.",
    ),
    "detach": (
        "Takes off what names `$postmeter_milter` and `$postmeter_daemon_name`, and nothing else. Stop "
        "postmeter afterwards, not before.",
    ),
    "explain": (
        "Runs all that the milter would, on a message from a file: whose it is, limits, links, signatures. "
        "Nothing is charged, recorded or sent.",
    ),
    "quota": ("Windows slide: there is no hour at which everybody starts again.",),
    "freeze": (
        "For a stolen account. Its mail is refused for good until `postmeter unfreeze`; what Postfix has "
        "already taken is in its queue.",
    ),
    "unfreeze": ("Mail that was refused meanwhile is not sent again by anybody but its sender.",),
    "dkim": (
        "Keys lie in `dkim.keys_dir`, for the milter's user alone. A new key is published first and signs "
        "later: `postmeter dkim check` tells when DNS shows it.",
    ),
    "links": ("They answer with a page that says so, and count no click. A block is for good until it is lifted.",),
    "report": (
        "Of recipients of mail that is ours, on the day on which it was submitted. Several hosts that ship to "
        "one database are reported together.",
    ),
    "trace": ("A queue id, a Message-ID, or the address of a recipient.",),
    "suppress": (
        "After hard bounces, complaints and unsubscribes a recipient of bulk mail is left out, and the others "
        "get the message.",
    ),
    "feedback": (
        "For a service of Postfix's by pipe(8), where LMTP (`bounces.lmtp`) is not possible. It ends with 0, "
        "or with 75 when nothing could be written down, and then Postfix keeps the message.",
    ),
    "erase": ("The journal and the spools are gone through while the daemons run. It cannot be undone.",),
    "backup": (
        "Makes a directory in DIR, for its owner alone: configuration and secrets are in it, and with "
        "`--keys` the private keys too. How to put it back stands in operations.md.",
    ),
}

EXAMPLE = """\
# Limits, signatures and tracked links for one domain.
quota:
  limits: [500 recipients/day, 100 recipients/hour]
dkim:
  sign:
  - {domain: example.com, keys: auto}
tracking:
  url: https://click.example.com
"""
