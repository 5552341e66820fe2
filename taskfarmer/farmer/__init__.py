"""The farmer: one loop around the ledger, the pool and the signals."""

from taskfarmer.farmer.run import run

__all__ = ["run"]
