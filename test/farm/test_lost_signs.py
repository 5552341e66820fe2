"""If a live farmer's heartbeat file was removed during silence before its first commit, it recreates the file."""

from __future__ import annotations

from support.farming import Field, eventually
from taskfarmer.storage.locks import alive_is_free


def test_a_live_farmer_recreates_its_heartbeat_and_is_not_expelled(field: Field) -> None:
    field.write(["sleep 6"])
    one = field.start("-n", 1, "--lease", 2)
    eventually(lambda: [*field.workdir.glob("farmers/*.alive")], "a farmer at work", 60)
    (alive,) = field.workdir.glob("farmers/*.alive")
    before = alive.stat().st_ino
    other = field.start("-n", 1, "--wait")
    alive.unlink()
    eventually(lambda: alive.exists() and alive.stat().st_ino != before, "its heartbeat", 60)
    content = alive.read_bytes()
    eventually(lambda: alive.exists() and alive.read_bytes() != content, "a later heartbeat", 60)
    assert not alive_is_free(str(alive))
    assert (one.wait(90), other.wait(90)) == (0, 0), one.said + other.said
    assert "is dead" not in other.said
    assert [*field.workdir.glob("farmers/*.alive")] == []
