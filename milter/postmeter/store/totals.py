"""Totals: what every metric adds up to since the first day, written in the transaction of the events they count."""

from __future__ import annotations
