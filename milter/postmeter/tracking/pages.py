"""The pages that a person sees: to unsubscribe, that it is done, to try again; and where a link leads nowhere.

Plain HTML that needs nothing else and runs nothing: no script, no image, no cookie, one style sheet that is named by
its hash (w3.org/TR/CSP3). Readable on a phone, by keyboard and by voice, light or dark (w3.org/TR/WCAG22). Knows
nothing of tokens; whatever is put into a page is escaped.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from functools import lru_cache
from hashlib import sha256
from html import escape

from postmeter.tracking import words
from postmeter.tracking.answers import Answer
from postmeter.tracking.words import Words

STYLE = """\
:root{color-scheme:light dark;--page:#fff;--text:#1b1c1f;--button:#0b57d0;--label:#fff}
@media(prefers-color-scheme:dark){:root{--page:#16181c;--text:#e9e9ec;--button:#a8c7fa;--label:#0a2450}}
body{margin:0;background:var(--page);color:var(--text);font:1.125rem/1.5 system-ui,sans-serif}
main{max-width:34rem;margin:auto;padding:12vh 1.25rem 2rem;overflow-wrap:anywhere}
h1{font-size:1.6rem;line-height:1.25}
button{font:inherit;font-weight:600;margin-top:.5rem;padding:.7rem 1.5rem;border:2px solid transparent;\
border-radius:.5rem;background:var(--button);color:var(--label);cursor:pointer}
button:focus-visible{outline:3px solid var(--text);outline-offset:3px}"""

_PAGE = """\
<!DOCTYPE html>
<html lang="{language}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{heading}</title>
<style>{style}</style>
</head>
<body>
<main>
<h1>{heading}</h1>
{content}
</main>
</body>
</html>
"""

# What a mail program sends of its own accord, the button sends too (RFC 8058 section 3.2). Without `action` the form
# goes where the page came from.
_FORM = '<form method="post"><button name="List-Unsubscribe" value="One-Click">{label}</button></form>'

_HASH = base64.b64encode(sha256(STYLE.encode()).digest()).decode()
_POLICY = (
    f"\r\nContent-Security-Policy: default-src 'none'; style-src 'sha256-{_HASH}'; frame-ancestors 'none'; "
    "base-uri 'none'; form-action "
)
_RETRY = "\r\nRetry-After: 60"

_PLAIN: Mapping[int, Mapping[str, Words]] = {404: words.NOT_FOUND, 410: words.GONE}


def ask(languages: str, left: str, *, sure: bool = True) -> Answer:
    """Whether somebody wants to leave; the same page for a request that should have said so and did not."""
    status, reason = (200, "OK") if sure else (400, "Bad Request")
    return _page(status, reason, words.ASK, words.choose(languages), left)


def done(languages: str, left: str) -> Answer:
    return _page(200, "OK", words.DONE, words.choose(languages), left)


def again(languages: str, left: str) -> Answer:
    """It could not be recorded: whoever asked must not believe that it was."""
    return _page(503, "Service Unavailable", words.AGAIN, words.choose(languages), left, _RETRY)


def plain(answer: Answer, languages: str) -> Answer:
    """What says that a link leads nowhere, as a page that a person can read."""
    return _nowhere(answer.status, answer.reason, words.choose(languages))


@lru_cache(maxsize=len(_PLAIN) * len(words.LANGUAGES))
def _nowhere(status: int, reason: str, language: str) -> Answer:
    return _page(status, reason, _PLAIN[status], language)


def _page(
    status: int, reason: str, spoken: Mapping[str, Words], language: str, left: str = "", fields: str = ""
) -> Answer:
    said = spoken[language]
    lines = [said.text.format(left=f"<strong><bdi>{escape(left)}</bdi></strong>"), said.more]
    content = [f"<p>{line}</p>" for line in lines if line]
    content += [_FORM.format(label=said.button)] if said.button else []
    page = _PAGE.format(language=language, heading=said.heading, style=STYLE, content="\n".join(content))
    kind = f"\r\nContent-Type: text/html; charset=utf-8\r\nContent-Language: {language}"
    action = "'self'" if said.button else "'none'"
    return Answer(status, reason, f"{kind}{_POLICY}{action}{fields}", page.encode("utf-8", "replace"))
