"""The record of which farmer holds which task. `ledger.py` is the interface; docs/architecture.md explains the rest."""

from taskfarmer.ledger.farmfile import Farm
from taskfarmer.ledger.ledger import FarmerReport, Ledger
from taskfarmer.ledger.state import Segment, State

__all__ = ["Farm", "FarmerReport", "Ledger", "Segment", "State"]
