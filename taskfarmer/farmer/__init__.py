"""The farmer: one loop around the ledger, the pool and the signals."""

from taskfarmer.farmer.farmer import run

__all__ = ["run"]
