"""Whether a refusal is the address's fault: the only kind that may keep mail from it later on.

Pure. Hard are the statuses of RFC 3463 section 3.2 that say "nobody is there": 5.1.1 no such mailbox, 5.1.3 no address,
5.1.6 moved away, 5.1.10 a null MX (RFC 7505), and of section 3.3 only 5.2.1, a mailbox that is disabled. All else may
pass or says something of the mail, its sender or the network: 5.2.2 a full mailbox, 5.7.x policy and reputation, and
our own 5.4.4 and 5.4.6 (no route, a loop). Words that promise another time outweigh any status: Gmail has 5.2.1 for too
much mail at once. So do words about the sender. Knows nothing of logs, reports or what is suppressed.
"""

from __future__ import annotations

import re

HARD = frozenset({"5.1.1", "5.1.3", "5.1.6", "5.1.10", "5.2.1"})
ADDRESS = r"[^\s<>()\[\]\":;,]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){0,9}"
"""What is no word, whatever it is called: `temporary@example.com` promises nothing."""

_ADDRESS = re.compile(ADDRESS)
_STATUS = re.compile(r"(?<![\d.])([245])\.(\d{1,3})\.(\d{1,3})(?![\d.])")
_REPLY = re.compile(r"(?<![\d.])[45]\d\d(?=[ -])")
_OF_ALL = ("552", "521")  # too much for the mailbox (RFC 5321 section 4.2.3); takes no mail at all (RFC 7504)
_PASSES = re.compile(
    r"at a (?:5\d\d[ -]5\.\d\.\d )?rate that|too (?:quickly|fast|many (?:messages|recipients))|rate[- ]limit"
    r"|\b(?:try|retry|again|back|at a) later\b|\btry again in\b|\btempora(?:r\w{1,10}|lmente|neamente)\b"
    r"|\btimed out\b|over[\s-]?quota|\bquota (?:is )?exceeded|\bstorage (?:\w{1,20} )?exceed"
    r"|\b(?:mail ?box|inbox) (?:is )?full\b|\b(?:this|per) (?:hour|day)\b|\b(?:daily|hourly) (?:\w{1,20} )?limit"
    r"|\bvor(?:ü|ue)bergehend|\btijdelijk|\btillf[aä]llig|\bmidlertidig|\bge[cç]ici\b|\bвременно\b|暂时|暫時|一時的|일시적",
    re.IGNORECASE,
)
_SENDER = re.compile(
    r"\bsender(?:'s)? (?:(?:was|is|e-?mail|address|domain|user|account|mailbox) ){0,3}"
    r"(?:rejected|unknown|invalid|disabled|not (?:found|known|valid)|does(?: not|n't) exist|verif|callout)"
    r"|\b(?:unknown|invalid|bad|no such) sender|\bverification failed for\b",
    re.IGNORECASE,
)
_FAR = 2000  # characters of a diagnostic that are looked at: what matters stands at its beginning


def hard(status: str, diagnostic: str, *, at_rcpt: bool) -> bool:
    """Of a final refusal with this status (`5.1.1`) and the words that came with it.

    `at_rcpt`: the recipient's own server said so when it was told the recipient, or in a report of its own. Where the
    words hold a status of their own, both must agree: a gateway often puts 5.1.1 over what was a matter of policy.
    A subject alone (5.1.0), beside the same status in the words, does not disagree: Cisco puts it before each answer.
    """
    if not at_rcpt:
        return False
    said = statuses(diagnostic)
    own = _plain(status)
    if own in ("", "5.0.0") and said:
        own, said = said[0], said[1:]
    reply = _REPLY.search(diagnostic[:_FAR])
    if reply and (reply[0][0] == "4" or reply[0] in _OF_ALL):
        return False
    words = _ADDRESS.sub("@", diagnostic[:_FAR])
    if _PASSES.search(words) or of_the_sender(words):
        return False
    vague = ("5.0.0", f"{own[:3]}.0") if own in said else ("5.0.0",)
    return own in HARD and all(each in HARD or each in vague for each in said)


def of_the_sender(words: str) -> bool:
    """Whether it was the sender who was refused: many servers say so only when they are told the recipient."""
    return bool(_SENDER.search(words))


def statuses(text: str) -> list[str]:
    """The enhanced status codes in what a server said, in their order."""
    return [_plain(match[0]) for match in _STATUS.finditer(text[:_FAR])]


def _plain(status: str) -> str:
    """Without leading zeros, which RFC 3463 section 2 forbids and some write."""
    match = _STATUS.search(status[:20])
    return ".".join(str(int(part)) for part in match.groups()) if match else ""
