"""A farm as a whole: how it is created, who may work on it, and the request to stop its farmers."""
