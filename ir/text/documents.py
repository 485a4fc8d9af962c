"""The text form as a whole: `parse` and `print_document`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from treadle.ir.codec import Path as Steps
from treadle.ir.codec import decode
from treadle.ir.diagnostics import Place, closest
from treadle.ir.errors import UnknownName, UnsupportedVersion
from treadle.ir.plan import FORMAT, Plan, body_type, read_text
from treadle.ir.text.errors import UnknownDocument
from treadle.ir.text.forms import DOCUMENTS, name_of, type_named
from treadle.ir.text.lexer import Source, TokenKind
from treadle.ir.text.parser import Parser
from treadle.ir.text.printer import print_object
from treadle.ir.text.tree import Node, locator


def parse(text: str, file: str = "<text>") -> list[Any]:
    """Read all documents of a text; objects come back in order.

    Raises:
        UnexpectedText, RepeatedField, LimitExceeded, UnknownDocument, MalformedText: the grammar is not followed.
        UnknownField, MissingField, WrongType, InvalidValue: a type's fields or rules are not followed.
        All with line, column and source line.
    """
    source = Source(text, file)
    parser = Parser(source)
    objects: list[Any] = []
    parser.skip_newlines()
    while parser.token.kind is not TokenKind.END:
        objects.append(_document(parser))
        if parser.token.kind not in (TokenKind.NEWLINE, TokenKind.END):
            raise parser.unexpected("a new line after the document")
        parser.skip_newlines()
    return objects


def parse_file(path: Path) -> list[Any]:
    """Read all documents of a file; raises as `parse` does, and UnreadableFile."""
    return parse(read_text(path), str(path))


def print_document(objects: Sequence[object]) -> str:
    """Return objects of the IR as text that `parse` reads back to equal objects; raises UnknownName."""
    words = {name: word for word, name in DOCUMENTS.items()}
    texts: list[str] = []
    for value in objects:
        word = words.get(name_of(type(value)))
        if word is None:
            raise UnknownName(kind="type of document", name=type(value).__name__, expected=_allowed())
        texts.append(print_object(word, type(value), value))
    return "\n".join(texts)


def _document(parser: Parser) -> Any:
    word = parser.token
    if word.kind is not TokenKind.WORD:
        raise parser.unexpected(f"the kind of a document: {_allowed()}")
    if word.text not in DOCUMENTS:
        raise UnknownDocument(
            place=parser.source.place_of(word),
            found=word.text,
            expected=_allowed(),
            hint=closest(word.text, list(DOCUMENTS)),
        )
    parser.next()
    kind = type_named(DOCUMENTS[word.text])
    return _built(kind, parser.named_record(kind), parser.source)


def _built(kind: type[Any], node: Node, source: Source) -> Any:
    locate = locator(node, source)
    data = node.data()
    if kind is not Plan:
        return decode(kind, data, locate)
    if data.get("format", FORMAT) != FORMAT:
        raise UnsupportedVersion(place=locate(("format",)), found=data["format"], expected=f"`{FORMAT}`")

    def locate_body(path: Steps) -> Place:
        return locate(("body", *path))

    plan = decode(Plan, data, locate)
    return replace(plan, body=decode(body_type(plan.kind), plan.body, locate_body))


def _allowed() -> str:
    return f"one of {', '.join(DOCUMENTS)}"
