"""Text that stays on its line: names, ids and messages come from anybody, and may hold any character."""

_INSTEAD = "\N{REPLACEMENT CHARACTER}"


def printable(text: str) -> str:
    """Return `text` without what could steer a terminal, or begin another line of a log or a message."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else _INSTEAD for each in text)
