"""taskfarmer: runs the commands of a task list, on one node or many, and loses none."""

__version__ = "1.0.0.dev0"
__all__ = ["__version__"]
