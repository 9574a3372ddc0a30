"""What is put at the end of a page: an image that tells that it was read, and a link that only robots follow.

Pure: text in, text out. Neither has an effect on how the page looks, whatever style it has for images or links. The
image is not hidden by `display: none`: some programs do not load what they do not show, and filters count hidden things
against a mail. It lies outside the flow, at a corner of the page; where a program allows no positions it floats, one
pixel large in a box of no size. It says so with more weight than a style sheet has. Outlook reads no such weight and
goes by width and height. The link has no text and is not displayed, so that nobody can follow it.
"""

from __future__ import annotations

import re

CLIPPED = 102_400
"""Octets of HTML behind which Gmail shows "Message clipped" instead: what comes last is not loaded then."""

LARGEST_AMP = 200_000
"""Octets that AMP may have; of more, programs show the HTML instead (amp.dev, AMP for Email Format)."""

_LINK_TAG = re.compile(rb"<!--.*?(?:-->|\Z)|<(?P<close>/?)[aA](?=[\t\n\f\r />])", re.DOTALL)
_STYLE = (
    "position:absolute!important;top:0!important;left:0!important;display:block!important;float:left!important;"
    "width:1px!important;height:1px!important;min-width:0!important;min-height:0!important;max-width:1px!important;"
    "max-height:1px!important;margin:-1px -1px 0 0!important;padding:0!important;border:0!important"
)


def image(url: str) -> bytes:
    return f'<img src="{url}" alt="" width="1" height="1" border="0" style="{_STYLE}">'.encode("ascii")


def within_link(page: bytes, at: int) -> bool:
    """Whether that place may be within a link: another one there would end it, and move what comes behind."""
    begun = ended = 0
    for found in _LINK_TAG.finditer(page, 0, at):
        if found["close"] is not None:  # no comment
            closes = bool(found["close"])
            begun, ended = begun + (not closes), ended + closes
    return begun > ended or (begun > 0 and not closes)


def trap(url: str) -> bytes:
    return (
        f'<a href="{url}" rel="nofollow" aria-hidden="true" tabindex="-1" style="display:none!important"></a>'
    ).encode("ascii")
