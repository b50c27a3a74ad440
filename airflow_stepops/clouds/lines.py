"""Cutting the bytes of a log into lines."""

from __future__ import annotations

#: A longer line comes in pieces.
LONGEST_LINE = 1 << 16


def next_line(data: bytes, start: int, *, complete: bool) -> tuple[str, int] | None:
    """Return the line that begins at a place, and the place after it; ``None`` when the line is not whole yet.

    A piece of a line that is longer than :data:`LONGEST_LINE` does not end inside of a UTF-8 character.

    :param complete: whether nothing comes after the data: what is left without an end of line is a line then.
    """
    found = data.find(b"\n", start, start + LONGEST_LINE + 1)
    if found >= 0:
        stop, after = found, found + 1
    elif len(data) - start > LONGEST_LINE:
        stop = after = _before_character(data, start + LONGEST_LINE)
    elif complete and start < len(data):
        stop = after = len(data)
    else:
        return None
    return data[start:stop].decode(errors="replace").rstrip("\r"), after


def _before_character(data: bytes, place: int) -> int:
    """Return the place, or the start of the character that it is inside of."""
    for back in range(4):
        if data[place - back] & 0xC0 != 0x80:
            return place - back
    return place
