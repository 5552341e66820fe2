"""`python -m taskfarmer` is the command `taskfarmer`."""

from taskfarmer.start import taskfarmer

if __name__ == "__main__":
    taskfarmer()
