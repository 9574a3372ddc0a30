"""What an SMTP client is told: a code, an enhanced status and a sentence (RFC 5321 4.2, RFC 3463).

Knows nothing of why. Text is made safe for the wire here and nowhere else: one printable line, short for Postfix,
class and code in agreement (D10).
"""

from __future__ import annotations

from dataclasses import dataclass

_LONGEST = 400  # RFC 5321 4.5.3.1.5 allows 512 octets a reply line, code and status included


@dataclass(frozen=True, slots=True)
class Reply:
    """A refusal: `code` 4xx or 5xx, `status` an enhanced status of that class, e.g. Reply(451, "4.7.1", "later")."""

    code: int
    status: str
    text: str

    def __post_init__(self) -> None:
        if self.code // 100 not in (4, 5) or self.status[:1] != str(self.code)[:1]:
            raise ValueError(f"reply {self.code} {self.status}: only 4xx or 5xx, and a status of the same class")

    @property
    def permanent(self) -> bool:
        return self.code >= 500

    def __str__(self) -> str:
        return f"{self.code} {self.status} {self.line()}"

    def line(self) -> str:
        """The text as one printable ASCII line."""
        ascii_text = self.text.encode("ascii", "backslashreplace").decode("ascii")
        return "".join(char if " " <= char <= "~" else " " for char in ascii_text)[:_LONGEST]
