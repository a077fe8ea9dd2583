"""Texts of users where people read them: nothing in them steers a terminal or turns a line around."""

from __future__ import annotations

__all__ = ["printable"]


def printable(text: str) -> str:
    r"""The text with everything that has no picture of its own written as an escape, `\x1b` for one."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
