"""Who holds which task. `ledger.py` is the door; the rooms behind it are explained in docs/architecture.md."""

from taskfarmer.ledger.farmfile import Farm
from taskfarmer.ledger.ledger import FarmerReport, Ledger
from taskfarmer.ledger.state import Segment, State

__all__ = ["Farm", "FarmerReport", "Ledger", "Segment", "State"]
