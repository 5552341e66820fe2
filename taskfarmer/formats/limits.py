"""How much of each kind a farm may have: what goes beyond is not read, and is not written either.

A farm may be anybody's, so nothing in it may make a reader take memory or time without a limit. The limits are far from
what farms have: 10^7 tasks, a thousand farmers, a retry of 100,000 tasks here and there (docs/security.md).
"""

DOCUMENT = 16 << 20
"""Bytes of a sealed document. The longest is a revision: every second one of 10^7 tasks returned takes 6 MB."""
VALUES = 1 << 20
"""Values in a document. A revision has six for each farmer and ten for each segment."""
DIGITS = 18
"""Digits of a number in a line, an interval or a name: such numbers fit a file offset."""
TASKS = 1 << 27
"""Tasks of a farm. Tables of all of them take 9 bytes for each, and 42 while a farm is checked."""
RESULT = 4096
"""Bytes of a result line."""
BLOCK = 256 << 20
"""Bytes of 64 lines of tasks that follow each other."""
TASK = 64 << 20
"""Bytes of a line in `toprocess`, `finished`, `failed`, a timeline, or a task list."""
