#!/usr/bin/env python3
"""`pytaskfarmer.py TASKLIST` out of a checkout that is not installed: Python finds the package beside this file."""

from taskfarmer.start import pytaskfarmer

if __name__ == "__main__":
    pytaskfarmer()
