"""Characters of the text form to tokens, each with its line and column."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from enum import Enum

from treadle.ir.diagnostics import Place
from treadle.ir.errors import MalformedText
from treadle.ir.text.errors import LimitExceeded

MAX_CHARACTERS = 16 * 2**20
MAX_DIGITS = 1000
_SHOWN_COLUMNS = 200


class TokenKind(Enum):
    """What a token is; `SIGN` covers all punctuation."""

    WORD = "word"
    NUMBER = "number"
    STRING = "string"
    SIGN = "sign"
    NEWLINE = "end of line"
    END = "end of text"


@dataclass(frozen=True, slots=True)
class Token:
    """One token: its text as written and its 1-based line and column."""

    kind: TokenKind
    text: str
    line: int
    column: int

    def is_sign(self, *signs: str) -> bool:
        """Whether the token is one of the signs."""
        return self.kind is TokenKind.SIGN and self.text in signs

    def __str__(self) -> str:
        if self.kind in (TokenKind.NEWLINE, TokenKind.END):
            return str(self.kind.value)
        brief = self.text if len(self.text) <= 60 else self.text[:57] + "..."
        return f"`{brief}`"


WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:[-./+][A-Za-z0-9_]+)*")
"""What needs no quotes, unless it is one of `CONSTANTS`."""

CONSTANTS: dict[str, bool | None] = {"true": True, "false": False, "null": None}

_TOKEN = re.compile(
    r"(?P<blank>[ \t\r]+|\#[^\n]*)"
    r"|(?P<newline>\n)"
    rf"|(?P<word>{WORD.pattern})"
    r"|(?P<number>-?[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?)"
    r'|(?P<string>"(?:[^"\\\n]|\\[^\n])*"|`[^`\n]*`)'
    r"|(?P<sign>->|[{}\[\]():=,@])"
)
_KINDS = {"word": TokenKind.WORD, "number": TokenKind.NUMBER, "string": TokenKind.STRING, "sign": TokenKind.SIGN}


class Source:
    """A text with its name; gives the place of a token."""

    def __init__(self, text: str, file: str) -> None:
        if len(text) > MAX_CHARACTERS:
            raise LimitExceeded(
                place=Place(file), found=f"{len(text):,}", what="characters", allowed=f"{MAX_CHARACTERS:,}"
            )
        self.text = text
        self.file = file
        self._lines = text.split("\n")

    def place(self, line: int, column: int) -> Place:
        """Return the place of a position, with its source line where that fits a screen."""
        shown = self._lines[line - 1].rstrip("\r").replace("\t", " ") if column <= _SHOWN_COLUMNS else ""
        return Place(self.file, line, column, text=shown[:_SHOWN_COLUMNS])

    def place_of(self, token: Token) -> Place:
        """Return the place of a token."""
        return self.place(token.line, token.column)


def tokenize(source: Source) -> list[Token]:
    """Return the tokens of a text, `END` last; raises MalformedText on characters that start no token."""
    tokens: list[Token] = []
    text, position, line, start_of_line = source.text, 0, 1, 0
    match_at = _TOKEN.match
    while position < len(text):
        match = match_at(text, position)
        column = position - start_of_line + 1
        if match is None:
            raise _no_token(source, text[position], line, column)
        name = match.lastgroup or ""
        position = match.end()
        if name == "newline":
            tokens.append(Token(TokenKind.NEWLINE, "\n", line, column))
            line, start_of_line = line + 1, position
        elif name != "blank":
            token = Token(_KINDS[name], match[0], line, column)
            if token.kind is TokenKind.NUMBER:
                _refuse_joined_word(source, token, text[position : position + 1])
            tokens.append(token)
    tokens.append(_end_after(tokens))
    return tokens


def _end_after(tokens: list[Token]) -> Token:
    """Return the end of the text; it stands behind the last token on its line, where something is missing."""
    for token in reversed(tokens):
        if token.kind is not TokenKind.NEWLINE:
            return Token(TokenKind.END, "", token.line, token.column + len(token.text))
    return Token(TokenKind.END, "", 1, 1)


def _no_token(source: Source, character: str, line: int, column: int) -> MalformedText:
    place = source.place(line, column)
    if character in '"`':
        return MalformedText(
            place=place,
            message="a string without an end on its line",
            expected=f"a closing {character}",
            hint="write line breaks inside strings as \\n",
        )
    return MalformedText(
        place=place, message=f"the character {character!r} means nothing here", hint="put it in quotes"
    )


def _refuse_joined_word(source: Source, token: Token, following: str) -> None:
    if following and (following.isalnum() or following in "_."):
        raise MalformedText(
            place=source.place_of(token),
            message=f"the number `{token.text[:60]}` runs into `{following}`",
            expected="a number, or a name that does not start with a digit",
            hint="put names that start with a digit in quotes",
        )


def number_of(token: Token, source: Source) -> int | float:
    """Return the exact integer or the nearest float; raises MalformedText and LimitExceeded beyond their ranges."""
    if len(token.text) > MAX_DIGITS:
        raise LimitExceeded(
            place=source.place_of(token), found=len(token.text), what="digits in one number", allowed=MAX_DIGITS
        )
    if token.text.lstrip("-").isdigit():
        return int(token.text)
    value = float(token.text)
    if not math.isfinite(value):
        raise MalformedText(place=source.place_of(token), message=f"`{token.text}` is too large for a number")
    return value


def string_of(token: Token, source: Source) -> str:
    """Return what a string token stands for: escapes in double quotes as in JSON, none in backquotes."""
    if token.text.startswith("`"):
        return token.text[1:-1]
    try:
        return str(json.loads(token.text, strict=False))
    except json.JSONDecodeError as error:
        place = source.place(token.line, token.column + error.pos)
        raise MalformedText(
            place=place,
            message="an escape that strings do not have",
            expected=r"one of \" \\ \/ \b \f \n \r \t \uXXXX",
        ) from None


def quoted(text: str) -> str:
    """Return `text` as a double-quoted string of the text form."""
    plain = json.dumps(text, ensure_ascii=False)
    return re.sub("[\ud800-\udfff]", lambda match: f"\\u{ord(match[0]):04x}", plain)


def bare_or_quoted(text: str) -> str:
    """Return `text` as a word where the reader takes it for one, else in quotes."""
    return text if WORD.fullmatch(text) and text not in CONSTANTS else quoted(text)
