"""The farmer: one loop around the ledger, the pool of workers, and signals."""

from taskfarmer.farmer.run import run

__all__ = ["run"]
