"""The output of tasks: a class for each mode of `--logs`, and the files that they write."""
