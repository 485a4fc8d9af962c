"""Tokens to trees, led by the annotations of the IR's dataclasses."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from treadle.ir.diagnostics import closest
from treadle.ir.errors import UnknownField, UnknownName
from treadle.ir.text.errors import LimitExceeded, RepeatedField, UnexpectedText
from treadle.ir.text.forms import Element, FieldOf, Literal, Optional, field_types, form_of, is_named, name_field
from treadle.ir.text.kinds import describe, is_record, item_type, value_type, without_none
from treadle.ir.text.lexer import CONSTANTS, Source, Token, TokenKind, number_of, string_of, tokenize
from treadle.ir.text.tree import Node

MAX_DEPTH = 64
_CLOSING = {"{": "}", "[": "]", "(": ")"}


class Parser:
    """A position in the tokens of one text."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._tokens = tokenize(source)
        self._position = 0
        self._depth = 0

    @property
    def token(self) -> Token:
        """The next token."""
        return self._tokens[self._position]

    def next(self) -> Token:
        """Take the next token."""
        token = self.token
        if token.kind is not TokenKind.END:
            self._position += 1
        return token

    def skip_newlines(self) -> None:
        """Take all ends of lines that follow."""
        while self.token.kind is TokenKind.NEWLINE:
            self._position += 1

    def unexpected(self, expected: str, hint: str = "") -> UnexpectedText:
        """Return the error for the next token."""
        return UnexpectedText(place=self.source.place_of(self.token), found=self.token, expected=expected, hint=hint)

    def value(self, kind: Any) -> Node:
        """Parse a value of the annotated type; what the annotation does not allow is left to the codec."""
        token = self.token
        if token.kind is TokenKind.WORD and token.text == "null":
            return Node(None, self.next())
        kind = without_none(kind)
        if token.is_sign("["):
            return self._list(kind)
        if token.is_sign("{"):
            return self.record(kind)
        if is_record(kind):
            form = form_of(kind)
            return self._form(kind, form) if form else self.named_record(kind)
        return self._scalar(kind)

    def named_record(self, kind: type) -> Node:
        """Parse `NAME {...}` (or `{...}`) of a type that is written with its name before it."""
        named = name_field(kind)
        if self.token.is_sign("{"):
            return self.record(kind)
        if named is None:
            raise self.unexpected(f"{describe(kind)} {{...}}")
        start = self.token
        head = {named: self.value(field_types(kind)[named])}
        if not self.token.is_sign("{"):
            raise self.unexpected(f"`{{` and the fields of {describe(kind)}")
        return self.record(kind, head, start)

    def record(self, kind: Any, head: dict[str, Node] | None = None, start: Token | None = None) -> Node:
        """Parse `{field = value ...}`; fields of a dataclass are checked by name at once."""
        opening = self.token
        fields = field_types(kind) if is_record(kind) else None
        found = dict(head or {})
        with self._inside("{"):
            while not self._at_end_of("{", opening):
                key = self._key(fields)
                name = _key_text(key, self.source)
                if name in found:
                    place, first = self.source.place_of(key), found[name].token.line
                    raise RepeatedField(place=place, field=name, first_line=first)
                found[name] = self._field_value(kind, fields, name, found)
                self._separator("{")
        return Node(found, start or opening)

    def _field_value(self, kind: Any, fields: dict[str, Any] | None, name: str, found: dict[str, Node]) -> Node:
        if _is_plan_body(kind, name):
            expected = self._dependent_type(found)
        else:
            expected = value_type(kind) if fields is None else fields[name]
        if self.token.is_sign("="):
            self.next()
        elif not self.token.is_sign("{", "[") and not is_named(expected):
            raise self.unexpected("`=`, `{` or `[` after the field's name")
        return self.value(expected)

    def _dependent_type(self, found: dict[str, Node]) -> Any:
        """Return the type of a plan's body, which its kind decides."""
        from treadle.ir.plan import body_type

        if "kind" not in found:
            raise self.unexpected("the field `kind` before `body`")
        try:
            return body_type(str(found["kind"].value))
        except UnknownName as error:
            error.place = self.source.place_of(found["kind"].token)
            raise

    def _key(self, fields: dict[str, Any] | None) -> Token:
        if self.token.kind not in (TokenKind.WORD, TokenKind.STRING):
            raise self.unexpected("the name of a field, or `}`")
        key = self.next()
        name = _key_text(key, self.source)
        if fields is not None and name not in fields:
            raise UnknownField(
                place=self.source.place_of(key),
                field=name,
                expected=f"one of {', '.join(fields)}",
                hint=closest(name, list(fields)),
            )
        return key

    def _list(self, kind: Any) -> Node:
        opening = self.token
        items: list[Node] = []
        with self._inside("["):
            while not self._at_end_of("[", opening):
                items.append(self.value(item_type(kind, len(items))))
                self._separator("[")
        return Node(items, opening)

    def _scalar(self, kind: Any) -> Node:
        token = self.token
        if token.kind is TokenKind.NUMBER:
            return Node(number_of(token, self.source), self.next())
        if token.kind is TokenKind.STRING:
            return Node(string_of(token, self.source), self.next())
        if token.kind is TokenKind.WORD:
            return Node(CONSTANTS.get(token.text, token.text), self.next())
        raise self.unexpected(describe(kind))

    def _form(self, kind: type, form: tuple[Element, ...]) -> Node:
        start = self.token
        found: dict[str, Node] = {}
        with self._deeper(start):
            self._elements(field_types(kind), form, found)
        return Node(found, start)

    def _elements(self, fields: dict[str, Any], form: tuple[Element, ...], found: dict[str, Node]) -> None:
        for position, element in enumerate(form):
            if isinstance(element, Literal):
                self._literal(element)
            elif isinstance(element, Optional):
                if self._is_literal(element.elements[0]):
                    self._elements(fields, element.elements, found)
            elif element.many:
                found[element.name] = self._items(fields[element.name], form[position + 1])
            else:
                found[element.name] = self._form_field(fields[element.name], element)

    def _form_field(self, kind: Any, element: FieldOf) -> Node:
        if element.null_word and self.token.kind is TokenKind.WORD and self.token.text == element.null_word:
            return Node(None, self.next())
        if self.token.kind in (TokenKind.NEWLINE, TokenKind.END):
            raise self.unexpected(f"{describe(kind)} for `{element.name}`")
        return self.value(kind)

    def _items(self, kind: Any, closing: Element) -> Node:
        items: list[Node] = []
        start = self.token
        self.skip_newlines()
        while not self._is_literal(closing):
            items.append(self.value(item_type(kind, len(items))))
            self.skip_newlines()
            if self.token.is_sign(","):
                self.next()
                self.skip_newlines()
            elif not self._is_literal(closing):
                raise self.unexpected(f"`,` or `{closing.text if isinstance(closing, Literal) else 'the next field'}`")
        return Node(items, start)

    def _is_literal(self, element: Element) -> bool:
        return (
            isinstance(element, Literal)
            and self.token.kind in (TokenKind.WORD, TokenKind.SIGN)
            and self.token.text == element.text
        )

    def _literal(self, element: Literal) -> None:
        if not self._is_literal(element):
            hint = closest(self.token.text, [element.text]) if self.token.kind is TokenKind.WORD else ""
            raise self.unexpected(f"`{element.text}`", hint)
        self.next()

    def _at_end_of(self, bracket: str, opening: Token) -> bool:
        """Whether the bracket closes here; takes the closing sign."""
        self.skip_newlines()
        if self.token.kind is TokenKind.END:
            raise self.unexpected(f"`{_CLOSING[bracket]}` for the `{bracket}` on line {opening.line}")
        if self.token.is_sign(_CLOSING[bracket]):
            self.next()
            return True
        return False

    def _separator(self, bracket: str) -> None:
        closing = _CLOSING[bracket]
        if self.token.is_sign(","):
            self.next()
        elif self.token.kind not in (TokenKind.NEWLINE, TokenKind.END) and not self.token.is_sign(closing):
            raise self.unexpected(f"a new line, `,` or `{closing}`")

    @contextmanager
    def _inside(self, bracket: str) -> Generator[None]:
        opening = self.token
        if not opening.is_sign(bracket):
            raise self.unexpected(f"`{bracket}`")
        with self._deeper(opening):
            self.next()
            yield

    @contextmanager
    def _deeper(self, token: Token) -> Generator[None]:
        if self._depth >= MAX_DEPTH:
            place = self.source.place_of(token)
            raise LimitExceeded(place=place, found="more", what="levels of nesting", allowed=MAX_DEPTH)
        self._depth += 1
        yield
        self._depth -= 1


def _key_text(key: Token, source: Source) -> str:
    return string_of(key, source) if key.kind is TokenKind.STRING else key.text


def _is_plan_body(kind: Any, name: str) -> bool:
    from treadle.ir.plan import Plan

    return kind is Plan and name == "body"
