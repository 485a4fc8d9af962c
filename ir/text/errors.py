"""Coded errors of the text form."""

from __future__ import annotations

from treadle.ir.diagnostics import TreadleError


class UnexpectedText(TreadleError):
    """A word, number or sign of the text form where another was due."""

    code = "TRD106"
    template = "unexpected {found}"


class RepeatedField(TreadleError):
    """A record of the text form that gives one field twice."""

    code = "TRD107"
    template = "field `{field}` is given twice; first on line {first_line}"
    hint = "keep one of them"


class LimitExceeded(TreadleError):
    """A text that is larger or more deeply nested than the reader accepts."""

    code = "TRD108"
    template = "the text has {found} {what}; at most {allowed} are read"
    hint = "split the document"


class UnknownDocument(TreadleError):
    """A document that starts with a word the text form does not know."""

    code = "TRD109"
    template = "unknown kind of document `{found}`"
