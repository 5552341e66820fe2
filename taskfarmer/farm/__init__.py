"""A farm as a whole: its creation, the users that may work on it, and the request to stop its farmers."""
