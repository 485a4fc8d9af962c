"""Coded errors shared by all levels; a level's own errors stand beside its types."""

from __future__ import annotations

from treadle.ir.diagnostics import ExitCode, TreadleError


class UnreadableFile(TreadleError):
    """A path that cannot be opened for reading."""

    code = "TRD001"
    template = "cannot read `{path}`: {reason}"
    hint = "check the path and its permissions"


class UnwritablePath(TreadleError):
    """A path that cannot be written."""

    code = "TRD002"
    template = "cannot write `{path}`: {reason}"
    hint = "choose another place with -o"


class UnsupportedVersion(TreadleError):
    """A plan written in a format this version does not read."""

    code = "TRD003"
    template = "plan format `{found}` is not readable by this version of treadle"
    hint = "read it with the treadle version it names under `versions`, or compile the plan again"


class NotAPlan(TreadleError):
    """A file or folder without a plan in it."""

    code = "TRD004"
    template = "`{path}` holds no plan: {reason}"
    hint = "point at a plan folder or its plan.json, as written by `treadle compile -o`"


class MissingExtra(TreadleError):
    """An optional dependency that the request needs is not installed."""

    code = "TRD005"
    template = "`{package}` is not installed, and {purpose} needs it"
    hint = "pip install 'treadle[{extra}]'"


class InvalidValue(TreadleError):
    """A value that breaks a rule of its type, found while building an object."""

    code = "TRD006"
    template = "{message}"


class UnknownName(TreadleError):
    """A name that is not in the list of allowed names."""

    code = "TRD007"
    template = "unknown {kind} `{name}`"


class MalformedText(TreadleError):
    """Text that does not follow its grammar (text form, JSON, TOML, CSV, XML)."""

    code = "TRD101"
    template = "{message}"


class UnknownField(TreadleError):
    """A field that the document's schema does not have."""

    code = "TRD102"
    template = "unknown field `{field}`"


class MissingField(TreadleError):
    """A required field that is absent."""

    code = "TRD103"
    template = "field `{field}` is missing"


class WrongType(TreadleError):
    """A field whose value has the wrong type or is out of range."""

    code = "TRD104"
    template = "field `{field}` has the value {found}: {reason}"


class WrongUnit(TreadleError):
    """A quantity without a unit, or with a unit of another dimension."""

    code = "TRD105"
    template = "`{found}` is not a {dimension}"


class Unmet(TreadleError):
    """Base of requests that no plan meets."""

    code = "TRD300"
    template = "{message}"
    exit_code = ExitCode.UNMET


class BadUsage(TreadleError):
    """A command line that the option parser refuses; people see the parser's own message with the usage line."""

    code = "TRD008"
    template = "{reason}"
    hint = "see `treadle VERB --help`"


class Defect(TreadleError):
    """An error of treadle itself; the traceback is kept in a file."""

    code = "TRD099"
    template = "treadle has a defect: {reason}; the traceback is in {path}"
    hint = "please report it with the command line that led here"
    exit_code = ExitCode.INTERNAL
