"""Rotations never leave a domain without a key that DNS has shown long enough, whatever happens in which order."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from postmeter.submission import rotation
from postmeter.submission.keydir import KeyState
from postmeter.submission.rotation import ALGORITHMS, OwnKey, Sighting, pause, ripe, sight

HOUR, DAY = 3600.0, 86_400.0
SEEN = 24 * HOUR
RETIRE = 7 * DAY


def own(algorithm: str, state: str, since: float = 0.0) -> OwnKey:
    return OwnKey(algorithm, KeyState(state, since))  # type: ignore[arg-type]


def test_a_sighting_lasts_from_the_first_look_to_the_last() -> None:
    sighting: Sighting | None = None
    for hour in range(25):
        sighting = sight(sighting, shown=True, now=hour * HOUR, seen=SEEN)
        assert ripe(sighting, now=hour * HOUR, seen=SEEN) is (hour == 24)


def test_one_look_that_does_not_show_it_begins_the_time_anew() -> None:
    before = Sighting(0.0, 23 * HOUR)
    assert sight(before, shown=False, now=23.2 * HOUR, seen=SEEN) is None


def test_silence_neither_counts_nor_breaks() -> None:
    before = Sighting(0.0, 23.5 * HOUR)
    assert sight(before, shown=None, now=24.1 * HOUR, seen=SEEN) is before
    assert not ripe(before, now=24.1 * HOUR, seen=SEEN)
    assert ripe(sight(before, shown=True, now=24.2 * HOUR, seen=SEEN), now=24.2 * HOUR, seen=SEEN)


@pytest.mark.parametrize("now", [22.0 * HOUR, 23.0 * HOUR + 5 * 900.0])
def test_a_clock_that_went_back_and_a_long_absence_begin_anew(now: float) -> None:
    """What nobody looked at for five looks may have been otherwise."""
    assert sight(Sighting(0.0, 23 * HOUR), shown=True, now=now, seen=SEEN) == Sighting(now, now)


def test_looks_are_often_enough_to_miss_some() -> None:
    assert pause(24 * HOUR) == 900.0
    assert pause(60.0) == 2.5
    assert pause(1.0) == 1.0


def test_a_rotation_wants_the_kinds_that_sign() -> None:
    assert rotation.wanted({"r": own("rsa", "active"), "e": own("ed25519", "active")}, now=10.0) == ["rsa", "ed25519"]
    assert rotation.wanted({"r": own("rsa", "active"), "old": own("ed25519", "retired")}, now=10.0) == ["rsa"]
    assert rotation.wanted({"r": own("rsa", "pending", 1.0)}, now=10.0) == []


def test_to_ask_again_makes_nothing_more_and_ends_what_was_interrupted() -> None:
    """One of two keys was written; the other is made up for, the first not made again, active by now or not."""
    keys = {"r": own("rsa", "active"), "e": own("ed25519", "active"), "r2": own("rsa", "pending", 5.0)}
    assert rotation.wanted(keys, now=10.0) == ["ed25519"]
    assert rotation.wanted({**keys, "e2": own("ed25519", "pending", 5.0)}, now=10.0) == []
    done = {"r": own("rsa", "retired", 9.0), "r2": own("rsa", "active", 9.0), "e": own("ed25519", "active")}
    assert rotation.wanted({**done, "e2": own("ed25519", "pending", 5.0)}, now=10.0) == []
    later = rotation.wanted({**done, "e2": own("ed25519", "pending", 5.0)}, now=9.0 + 8 * DAY)
    assert later == ["rsa"], "a key that nobody publishes must not keep the other from being changed, when asked"


def test_new_keys_are_due_when_the_oldest_that_signs_is_too_old() -> None:
    keys = {"r": own("rsa", "active", 10 * DAY), "e": own("ed25519", "active", 100 * DAY), "x": own("rsa", "retired")}
    assert rotation.due(keys, now=189 * DAY, every=180 * DAY) == []
    assert rotation.due(keys, now=190 * DAY, every=180 * DAY) == ["rsa", "ed25519"]
    assert rotation.due(keys, now=190 * DAY, every=190 * DAY) == []
    young = {**keys, "e": own("ed25519", "active", 150 * DAY)}
    assert rotation.due(young, now=190 * DAY, every=180 * DAY) == ["rsa"]
    waiting = {**keys, "n": own("rsa", "pending", 180 * DAY)}
    assert rotation.due({**waiting, "m": own("ed25519", "pending", 180 * DAY)}, now=999 * DAY, every=180 * DAY) == []


def test_a_pending_key_that_nobody_publishes_keeps_no_other_from_being_changed() -> None:
    keys = {"r": own("rsa", "active"), "e": own("ed25519", "active"), "e2": own("ed25519", "pending", DAY)}
    assert rotation.due(keys, now=179 * DAY, every=180 * DAY) == []
    assert rotation.due(keys, now=180 * DAY, every=180 * DAY) == ["rsa"]


def test_the_newest_of_two_pending_keys_wins() -> None:
    keys = {"a": own("rsa", "active"), "b": own("rsa", "pending", 1.0), "c": own("rsa", "pending", 2.0)}
    states = rotation.promote(keys, ["b", "c"], 9.0)
    assert {name: state.state for name, state in states.items()} == {"a": "retired", "b": "retired", "c": "active"}


def test_the_other_algorithm_is_left_alone() -> None:
    keys = {"r": own("rsa", "active"), "e": own("ed25519", "active"), "r2": own("rsa", "pending", 1.0)}
    states = rotation.promote(keys, ["r2"], 9.0)
    assert states["e"] == KeyState("active", 0.0)
    assert states["r"] == KeyState("retired", 9.0)


def test_a_key_is_removable_when_nothing_that_it_signed_is_on_its_way() -> None:
    assert not rotation.removable(KeyState("retired", 100.0), now=100.0 + RETIRE - 1, after=RETIRE)
    assert rotation.removable(KeyState("retired", 100.0), now=100.0 + RETIRE, after=RETIRE)
    assert not rotation.removable(KeyState("active", 0.0), now=1e10, after=RETIRE)


@dataclass
class World:
    """What DNS shows, and what is true of it: since when each key has been shown without a break."""

    shown: dict[str, bool] = field(default_factory=dict)
    since: dict[str, float] = field(default_factory=dict)


class Rotating(RuleBasedStateMachine):
    """Any order of publishing, withdrawing, silence, looking, asking for rotations, and time that goes by."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.world = World()
        self.keys: dict[str, OwnKey] = {}
        self.sightings: dict[str, Sighting | None] = {}
        self.signed: set[str] = set()
        self.retired_at: dict[str, float] = {}

    @initialize(algorithms=st.sets(st.sampled_from(ALGORITHMS), min_size=1))
    def begin(self, algorithms: set[str]) -> None:
        for algorithm in algorithms:
            self.keys[algorithm] = own(algorithm, "active")
        self.signed = set(self.keys)

    @rule(hours=st.sampled_from([0.05, 0.25, 0.9, 3.0, 30.0]))
    def wait(self, hours: float) -> None:
        self.now += hours * HOUR

    @rule()
    def rotate(self) -> None:
        for algorithm in rotation.wanted(self.keys, now=0.0):
            self.keys[f"{algorithm}{len(self.keys)}"] = own(algorithm, "pending", self.now)

    @rule(number=st.integers(0, 9))
    def publish(self, number: int) -> None:
        name = sorted(self.keys)[number % len(self.keys)]
        if not self.world.shown.get(name):
            self.world.shown[name], self.world.since[name] = True, self.now

    @rule(number=st.integers(0, 9))
    def withdraw(self, number: int) -> None:
        self.world.shown[sorted(self.keys)[number % len(self.keys)]] = False

    @rule(silent=st.booleans())
    def look(self, silent: bool) -> None:
        grown = []
        for name in rotation.pending(self.keys):
            shown = None if silent else self.world.shown.get(name, False)
            self.sightings[name] = sight(self.sightings.get(name), shown=shown, now=self.now, seen=SEEN)
            if ripe(self.sightings[name], now=self.now, seen=SEEN):
                grown.append(name)
        before = self.keys
        states = rotation.promote(before, grown, self.now)
        self.keys = {name: OwnKey(key.algorithm, states[name]) for name, key in before.items()}
        for name, key in self.keys.items():
            if key.state.state == "retired":
                self.retired_at.setdefault(name, self.now)
        for name in grown:
            if self.keys[name].state.state == "active":
                assert self.world.shown[name]
                assert self.now - self.sightings[name].since >= SEEN  # type: ignore[union-attr]

    @rule(quarters=st.integers(90, 110))
    def look_for_a_day(self, quarters: int) -> None:
        """As the books do while nobody touches anything."""
        for _ in range(quarters):
            self.now += 900.0
            self.look(silent=False)

    @invariant()
    def every_algorithm_that_signed_signs(self) -> None:
        signing = [key.algorithm for key in self.keys.values() if key.state.state == "active"]
        assert sorted(signing) == sorted({key.algorithm for name, key in self.keys.items() if name in self.signed})

    @invariant()
    def nothing_is_removable_before_its_time(self) -> None:
        for name, key in self.keys.items():
            if rotation.removable(key.state, now=self.now, after=RETIRE):
                assert self.now - self.retired_at[name] >= RETIRE


TestRotating = Rotating.TestCase
