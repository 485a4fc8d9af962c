"""Loops that no assignment to warp groups runs."""

from __future__ import annotations

from treadle.ir.errors import Unmet


class RegistersExceeded(Unmet):
    """The values of a loop do not fit the registers of the groups at any interval."""

    code = "TRD303"
    template = (
        "loop `{loop}` fits no warp groups: {values} need {needed} registers per thread together, "
        "and a group has {free} besides {fixed} fixed ones"
    )
    hint = "split the tile into sub-tiles, or shrink it by {factor:.2f}x"


class NoWarpSchedule(Unmet):
    """No joint schedule was found: neither a proof that there is none, nor one within the limits."""

    code = "TRD304"
    template = "no schedule of loop `{loop}` over at most {groups} warp groups was found up to interval {ii}"
    hint = "raise the time limit, allow more groups or registers, or take smaller tiles"


class GroupsExceeded(NoWarpSchedule):
    """No assignment of a loop's operations to groups has the registers, and the memory for what it hands over."""

    code = "TRD609"
    template = (
        "loop `{loop}` fits no warp groups: {operations} need {needed} registers per thread in one group, which has "
        "{most}; in several, each has a share of the file's {file}, and handoffs have {free} bytes of `{memory}` "
        "beside the rings"
    )
    hint = "take smaller tiles, or split them into sub-tiles"
