"""Upper limits for the files of a farm. Nothing larger is read or written.

A farm may belong to a stranger, so no file in it may make a reader use unlimited memory or time. The limits are far
above real farms: 10^7 tasks, a thousand farmers, a retry of 100,000 scattered tasks (docs/security.md).
"""

DOCUMENT = 16 << 20
"""Bytes of a sealed document. The longest is a revision: 6 MB if every second one of 10^7 tasks was returned."""
VALUES = 1 << 20
"""Values in a document. A revision has six for each farmer and ten for each segment."""
DIGITS = 18
"""Digits of a number in a line, an interval or a name: such numbers fit a file offset."""
TASKS = 1 << 27
"""Tasks of a farm. Tables of all tasks take 9 bytes for each, and 42 while a farm is checked."""
RESULT = 4096
"""Bytes of a result line."""
BLOCK = 256 << 20
"""Bytes of 64 consecutive lines of tasks."""
TASK = 64 << 20
"""Bytes of a line in `toprocess`, `finished`, `failed`, a timeline, or a task list."""
