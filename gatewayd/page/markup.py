"""HTML that cannot be wrong: an element is made of its name, its attributes and what is in it. Pure.

Text is escaped because it is text; only what `element` made is markup. So nothing from outside becomes markup.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Final

_VOID: Final = frozenset({"input", "link", "meta"})


class Markup(str):
    """What `element` and `joined` made."""

    __slots__ = ()


Content = str | Markup | Iterable["Content"]


def element(name: str, /, *content: Content, **attributes: str | int | bool | None) -> Markup:
    """`class_` is written `class`, `aria_label` as `aria-label`. None, False: the attribute is not there."""
    words = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{escape(str(value))}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in _VOID:
        return Markup(f"<{name}{words}>")
    return Markup(f"<{name}{words}>{joined(content)}</{name}>")


def joined(content: Content) -> Markup:
    """Text escaped, markup as it is, and both in their order."""
    if isinstance(content, Markup):
        return content
    if isinstance(content, str):
        return Markup(escape(content, quote=False))
    return Markup("".join(joined(each) for each in content))
