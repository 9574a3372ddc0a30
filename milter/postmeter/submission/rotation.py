"""When a key's time has come: a new one signs after DNS has shown it long enough, the old one signs until then.

Pure: states, sightings and the clock come in, states come out. Knows nothing of files, DNS or daemons. Each algorithm
is by itself: a domain whose RSA record is published and whose Ed25519 record is not changes the RSA key. What holds at
any time, whoever is killed where: an algorithm that signed goes on signing, with a key that DNS shows.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from postmeter.submission.keydir import KeyState

ALGORITHMS = ("rsa", "ed25519")

_LOOKS = 24  # in `rotate_seen`
_OFTEN, _SELDOM = 1.0, 900.0  # seconds between two looks, at the least and at the most
_ONE_ROTATION = 7 * 86_400.0  # seconds in which who asks again means the same one
_MISSED = 4  # looks in a row that may fail before the time begins anew


@dataclass(frozen=True, slots=True)
class OwnKey:
    """A key that has its file. `since` is when it came into that state, for one without an entry when it was made."""

    algorithm: str
    state: KeyState


Keys = Mapping[str, OwnKey]
"""The keys of one domain by selector."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """Everybody who was asked has shown the key, from `since` to `last`, without a break that we know of."""

    since: float
    last: float


def pause(seen: float) -> float:
    """Seconds between two looks for a key that must be seen for `seen`."""
    return min(max(seen / _LOOKS, _OFTEN), _SELDOM)


def sight(before: Sighting | None, *, shown: bool | None, now: float, seen: float) -> Sighting | None:
    """What is known after one more look. `shown` None: nobody could tell, which neither counts nor breaks.

    But what nobody saw for some looks, or with a clock that went back, begins anew.
    """
    if shown is None:
        return before
    if not shown:
        return None
    if before is None or not 0 <= now - before.last <= _MISSED * pause(seen):
        return Sighting(now, now)
    return replace(before, last=now)


def ripe(sighting: Sighting | None, *, now: float, seen: float) -> bool:
    """Only right after a look that showed it."""
    return sighting is not None and sighting.last == now and now - sighting.since >= seen


def pending(keys: Keys) -> list[str]:
    return [name for name, key in keys.items() if key.state.state == "pending"]


def promote(keys: Keys, ripe: Collection[str], now: float) -> dict[str, KeyState]:
    """The states of all keys when these begin to sign: each retires those of its algorithm. The newest wins."""
    ready = {name: keys[name] for name in ripe if name in keys and keys[name].state.state == "pending"}
    states = {name: key.state for name, key in keys.items()}
    for algorithm in {key.algorithm for key in ready.values()}:
        mine = [name for name, key in ready.items() if key.algorithm == algorithm]
        new = max(mine, key=lambda name: (ready[name].state.since, name))
        old = [name for name, key in keys.items() if key.algorithm == algorithm and key.state.state == "active"]
        states |= {name: KeyState("retired", now) for name in (*old, *mine)}
        states[new] = KeyState("active", now)
    return states


def wanted(keys: Keys, *, now: float) -> list[str]:
    """The algorithms for which a rotation has to make a key: those that sign, but for what it has made already.

    One that was interrupted has made some of them; what became active since is of the same rotation, for a week.
    """
    waiting = pending(keys)
    begun = max(min((keys[name].state.since for name in waiting), default=float("inf")), now - _ONE_ROTATION)
    done = {key.algorithm for key in keys.values() if key.state.state == "pending" or key.state.since > begun}
    signing = {key.algorithm for key in keys.values() if key.state.state == "active"}
    return [algorithm for algorithm in ALGORITHMS if algorithm in signing - done]


def due(keys: Keys, *, now: float, every: float) -> list[str]:
    """The algorithms that `rotate_every` asks new keys for. One that was changed lately, alone, is left in peace.

    So is one of which a key is pending; it holds up no other, for nobody may ever publish it.
    """
    waiting = {keys[name].algorithm for name in pending(keys)}
    signing = {name: key for name, key in keys.items() if key.state.state == "active" and key.algorithm not in waiting}
    ages = {name: now - key.state.since for name, key in signing.items()}
    if max(ages.values(), default=0.0) < every:
        return []
    old = {keys[name].algorithm for name, age in ages.items() if age >= every / 2}
    return [algorithm for algorithm in ALGORITHMS if algorithm in old]


def removable(state: KeyState, *, now: float, after: float) -> bool:
    """Whether no mail that it signed can be on its way any more."""
    return state.state == "retired" and now - state.since >= after
