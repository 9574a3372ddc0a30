"""Why a parameter of opendkim.conf is not carried over, and what to do instead; one line each.

Knows nothing of the values: what depends on them is `import_opendkim`'s.
"""

from __future__ import annotations

from postmeter.cli.opendkimconf import Setting

_VERIFIES = "postmeter signs only; let OpenDKIM, rspamd or opendmarc verify incoming mail, on another service"
_MALFORMED = "Postfix adds or repairs what is missing; mail without one clear From leaves unsigned, and is counted"
_NO_LUA = "there are no scripts; say what it decided on by senders, dkim.sign or the tables"
_EXPERIMENT = "an experiment of OpenDKIM's that has no counterpart"

# Said by other keys, or with no effect on what is signed.
_CARRIED = frozenset(
    """
    basedirectory canonicalization domain keyfile keytable macrolist mta multiplesignatures nameservers omitheaders
    on-default on-internalerror on-signatureerror oversignheaders selector signaturettl signheaders signingtable socket
    subdomains
    autorestart autorestartcount autorestartrate background disablecryptoinit dnsconnect dnstimeout enablecoredumps
    externalignorelist internalhosts keeptemporaryfiles logresults logwhy maximumheaders milterdebug pidfile querycache
    resolverconfiguration resolvertracing softstart syslog syslogfacility syslogname syslogsuccess temporarydirectory
    trustanchorfile unboundconfigfile testdnsdata testpublickeys stricttestmode changerootdirectory captureunknownerrors
    """.split()  # noqa: SIM905 (a list a line would be longer than what it says)
)

_OF_A_VERIFIER = frozenset(
    """
    alwaysaddarheader authservid authservidwithjobid boguskey clockdrift diagnosticdirectory domainkeyscompat
    ignoremalformedmail keepauthresults maximumsignaturestoverify minimum mustbesigned mtacommand noheaderb
    redirectfailuresto removearall removearfrom reportaddress reportbccaddress singleauthresult smtpuri
    trustsignaturesfrom unprotectedkey
    """.split()  # noqa: SIM905
)

_WHEN_ON = {
    "diagnostics": "no z= is written: postmeter explain --diff shows what was signed",
    "fixcrlf": "not needed: what Postfix hands over is signed as it will leave, and dkim.make_safe sees to long lines",
    "removeoldsignatures": "signatures of others stay: they speak for others",
    "requestreports": "r=y is not written: hardly a receiver heeds it (RFC 6651)",
    "softwareheader": "no field tells of postmeter",
    "strictheaders": _MALFORMED,
    "requiredheaders": _MALFORMED,
    "resignall": _EXPERIMENT,
    "sendreports": _VERIFIES,
    "weaksyntaxchecks": _MALFORMED,
    "identityheaderremove": _EXPERIMENT,
    "quarantine": _VERIFIES,
    "allowsha1only": "signatures are SHA-256 always",
}

_REASONS = {
    "bodylengthdb": "l= is never written: it lets others append to signed mail",
    "maximumsignedbytes": "l= is never written: it lets others append to signed mail",
    "dontsignmailto": "whom mail is for does not matter; leave such mail to a service of Postfix without this milter",
    "exemptdomains": "do not list them in dkim.sign; From domains without a key leave unsigned",
    "identityheader": "i= is said by dkim.identity: login or from",
    "peerlist": "let these clients in by a service of Postfix without this milter",
    "popdbfile": "POP-before-SMTP is not known; list the networks",
    "minimumkeybits": "not for signing: keys under 1024 bits are refused here, those under 2048 get a warning",
    "replaceheaders": "signed is what leaves; a later masquerade belongs before this milter",
    "replacerules": "signed is what leaves; a later masquerade belongs before this milter",
    "resignmailto": _EXPERIMENT,
    "selectcanonicalizationheader": "one canonicalization for all: dkim.canonicalization",
    "signaturealgorithm": "the algorithm is the key's: RSA with SHA-256, or Ed25519",
    "sendermacro": "keys are found by the From field, as DMARC wants it",
    "setuppolicyscript": _NO_LUA,
    "screenpolicyscript": _NO_LUA,
    "finalpolicyscript": _NO_LUA,
    "statisticspolicyscript": _NO_LUA,
    "statistics": "figures are at metrics.listen",
    "statisticsname": "figures are at metrics.listen",
    "statisticsprefix": "figures are at metrics.listen",
    "umask": "milter.socket_mode and milter.socket_group say who may connect (0660, postfix)",
    "userid": "postmeter has its own user, which must be able to read the keys, and no other but root: "
    "chown postmeter KEYFILE when OpenDKIM is gone, or give it copies until then",
    "ldapbindpassword": "LDAP is not read",
}


def why_not(setting: Setting) -> str:
    """Empty where all that it means is carried over, or nothing depends on it."""
    name = setting.name.lower()
    if name in _CARRIED:
        return ""
    if name in _WHEN_ON:
        return _WHEN_ON[name] if setting.on else ""
    if name in _REASONS:
        return _REASONS[name]
    return _by_value(name, setting)


def _by_value(name: str, setting: Setting) -> str:
    if name == "mode":
        return _VERIFIES if "v" in setting.value else ""
    if name == "requiresafekeys":
        always = "always on here: root and postmeter alone may reach a key; check-config names what is open to others"
        return "" if setting.on else always
    if name == "senderheaders":
        alone = setting.value.strip().lower() == "from"
        return "" if alone else "keys are found by the From field, as DMARC wants it"
    if name.startswith("ldap"):
        return "LDAP is not read: write its rows to text files"
    if name.startswith(("vbr-", "atps")):
        return _EXPERIMENT
    verifies = name in _OF_A_VERIFIER or name.startswith("on-")
    return _VERIFIES if verifies else "not known to postmeter: see opendkim.conf(5) for what it did"
