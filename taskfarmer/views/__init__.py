"""Files for users, derived from the ledger and the results: `toprocess`, `finished`, `failed`, `timeline.json`."""

from taskfarmer.views.rebuild import rebuild
from taskfarmer.views.views import Views

__all__ = ["Views", "rebuild"]
