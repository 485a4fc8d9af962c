"""What can be wrong with a request for a tile program."""

from __future__ import annotations

from treadle.ir.diagnostics import TreadleError


class UnknownFamily(TreadleError):
    """A family of kernels that the library does not have."""

    code = "TRD500"
    template = "unknown kernel family `{family}`"
    hint = "`treadle kernel --list` says what each of them is; a program of your own is FILE.py:NAME"


class UnknownShapeKey(TreadleError):
    """A shape key that the family does not have."""

    code = "TRD501"
    template = "`{family}` has no shape key `{key}`"


class MissingShapeKey(TreadleError):
    """A shape without an extent that the family needs."""

    code = "TRD502"
    template = "`{family}` needs the shape key `{key}`"
    hint = "give it as `{key}=NUMBER`"


class InvalidExtent(TreadleError):
    """An extent that is no whole number in its range."""

    code = "TRD503"
    template = "the extent `{key}` of `{family}` is {found}"
    hint = "extents are whole numbers"


class IndivisibleHeads(TreadleError):
    """Query heads that cannot be shared out evenly over the key-value heads."""

    code = "TRD504"
    template = "{heads} query heads cannot share {kv_heads} key-value heads evenly"
    hint = "`heads` must be a multiple of `kv_heads`"


class UnsupportedHeadDimension(TreadleError):
    """A head dimension that no tile of the kernel covers."""

    code = "TRD505"
    template = "head dimension `{key}` = {found} is not supported"


class InvalidTileSize(TreadleError):
    """A tile size that the family does not have, or that is out of range."""

    code = "TRD506"
    template = "tile size `{key}` of `{family}` is {found}"


class InvalidOption(TreadleError):
    """An option that the family does not have, or a value it does not take."""

    code = "TRD507"
    template = "option `{key}` of `{family}` is `{found}`"
