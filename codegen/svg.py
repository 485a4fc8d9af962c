"""SVG as text: escaped attributes, short numbers, deterministic order."""

from __future__ import annotations

from html import escape


def element(tag: str, *children: str, **attributes: object) -> str:
    """Return an element; a trailing underscore of an attribute is dropped, other underscores become hyphens.

    Children are markup and stand as they are; use `text` for content.
    """
    written = "".join(f' {_name(key)}="{escape(_shown(value))}"' for key, value in attributes.items())
    if not children:
        return f"<{tag}{written}/>"
    return f"<{tag}{written}>{''.join(children)}</{tag}>"


def text(content: str) -> str:
    """Return content as escaped text."""
    return escape(content, quote=False)


def label(x: float, y: float, content: str, **attributes: object) -> str:
    """Return a text element."""
    return element("text", text(content), x=x, y=y, **attributes)


def _name(key: str) -> str:
    return "viewBox" if key == "view_box" else key.rstrip("_").replace("_", "-")


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return str(value)
