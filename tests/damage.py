"""Texts of which one thing is damaged: rows of what to replace by what, or of a function, and the error to expect."""


def damaged(text: str, row: tuple) -> tuple[str, str]:
    """Return the text after the damage of a row (old, new, message) or (function, message), and the message."""
    *change, message = row
    changed = change[0](text) if callable(change[0]) else text.replace(*change)
    assert changed != text
    return changed, message
