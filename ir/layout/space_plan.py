"""A step's buffers over memory spaces as a plan: moves through gaps, homes on chip, reruns, offsets, and legality."""

from __future__ import annotations

from dataclasses import dataclass

from treadle.ir.diagnostics import Finding
from treadle.ir.layout.buffers import Buffer, BuffersPlan, BuffersProblem
from treadle.ir.layout.buffers import check as check_offsets
from treadle.ir.layout.memory_spaces import SpacesProblem, StepBuffer
from treadle.ir.layout.space_modes import Gap, GapMode, Way, fresh, repeatable, resident


@dataclass(frozen=True, slots=True)
class Move:
    """One way through the gap of a buffer after its use `before`."""

    buffer: int
    before: int
    mode: GapMode


@dataclass(frozen=True, slots=True)
class Home:
    """A buffer that spends its life in a space other than the main one."""

    buffer: int
    space: int


@dataclass(frozen=True, slots=True)
class Return:
    """A dead buffer made again at a section, for what is made from it there."""

    buffer: int
    section: int


@dataclass(frozen=True, slots=True)
class Piece:
    """A buffer's stay in a space over sections [lower, upper), at `offset_bytes`."""

    buffer: int
    space: int
    lower: int
    upper: int
    offset_bytes: int = 0


@dataclass(frozen=True, slots=True)
class SpacesPlan:
    """The problem, the decisions, and the offset of every stay in a space with a capacity."""

    problem: SpacesProblem
    moves: tuple[Move, ...] = ()
    homes: tuple[Home, ...] = ()
    returns: tuple[Return, ...] = ()
    pieces: tuple[Piece, ...] = ()


def gap_after(buffer: StepBuffer, position: int, before: int) -> Gap | None:
    """Return the gap of a buffer after one of its uses; None if there is none."""
    if before not in buffer.uses:
        return None
    index = buffer.uses.index(before)
    if index + 1 < len(buffer.uses):
        return Gap(position, before, buffer.uses[index + 1], ())
    return Gap(position, before, buffer.uses[0], (), wraps=True) if buffer.kept else None


def stays(plan: SpacesPlan) -> tuple[Piece, ...]:
    """Return every stay that the decisions make, without offsets; spaces without a capacity are left out."""
    problem, end = plan.problem, len(plan.problem.sections)
    moved: dict[int, list[Move]] = {}
    for move in plan.moves:
        moved.setdefault(move.buffer, []).append(move)
    at_home = {home.buffer: home.space for home in plan.homes}
    pieces: list[Piece] = []
    for position, buffer in enumerate(problem.buffers):
        low, high = (0, end) if buffer.kept else (buffer.uses[0], buffer.uses[-1] + 1)
        moves = moved.get(position, [])
        pieces += [
            Piece(position, at_home.get(position, 0), *span) for span in _left(low, high, position, moves, buffer)
        ]
        for move in moves:
            if move.mode.way is Way.COPY:
                gap = gap_after(buffer, position, move.before)
                assert gap is not None
                span = (0, end) if gap.wraps else (gap.before + 1, gap.after)
                pieces.append(Piece(position, move.mode.space, *span))
    pieces += [Piece(each.buffer, 0, each.section, each.section + 1) for each in plan.returns]
    return tuple(piece for piece in pieces if problem.spaces[piece.space].capacity_bytes is not None)


def _left(low: int, high: int, position: int, moves: list[Move], buffer: StepBuffer) -> list[tuple[int, int]]:
    """Return the sections of a life that moves leave in place, as half-open spans."""
    freed: list[tuple[int, int]] = []
    for move in moves:
        gap = gap_after(buffer, position, move.before)
        assert gap is not None
        begin = move.before + 1 if move.mode.way is Way.RERUN else move.mode.out_until + 1
        freed += [(begin, high), (low, move.mode.in_from)] if gap.wraps else [(begin, move.mode.in_from)]
    spans: list[tuple[int, int]] = []
    for begin, finish in sorted(freed):
        if begin > low:
            spans.append((low, begin))
        low = max(low, finish)
    return [*spans, (low, high)] if low < high else spans


def check(plan: SpacesPlan) -> list[Finding]:
    """Return every reason why the plan is illegal.

    Codes: TRD700 a move through no gap, TRD701 a rerun that cannot be, TRD702 a kept buffer whose last gap stays,
    TRD703 a home, TRD704 stays; of offsets those of `ir.layout.buffers`.
    """
    findings = [finding for move in plan.moves for finding in _check_move(plan.problem, move)]
    if len({(move.buffer, move.before) for move in plan.moves}) != len(plan.moves):
        findings.append(Finding("TRD700", "moves", "a gap is moved through twice"))
    findings += [finding for home in plan.homes for finding in _check_home(plan, home)]
    findings += _check_returns(plan)
    if findings:
        return findings
    findings += _check_kept(plan)
    findings += _check_reruns(plan)
    return findings or _check_pieces(plan)


def _check_move(problem: SpacesProblem, move: Move) -> list[Finding]:
    where = f"move of buffer {move.buffer} after section {move.before}"
    if not 0 <= move.buffer < len(problem.buffers):
        return [Finding("TRD700", where, "no such buffer")]
    gap = gap_after(problem.buffers[move.buffer], move.buffer, move.before)
    if gap is None:
        return [Finding("TRD700", where, "no gap follows that section")]
    mode, end = move.mode, len(problem.sections)
    if mode.way is Way.RERUN:
        legal = not gap.wraps and gap.before < mode.in_from <= gap.after
        return [] if legal else [Finding("TRD701", where, "made again outside the gap", str(gap), str(mode.in_from))]
    if not 0 < mode.space < len(problem.spaces) or problem.spaces[mode.space].out_bytes_per_s is None:
        return [Finding("TRD700", where, "no copies reach that space", "a space with copies", str(mode.space))]
    if gap.wraps:
        legal = gap.before < mode.out_until < end and 0 <= mode.in_from < gap.after
    else:
        legal = gap.before < mode.out_until < mode.in_from < gap.after
    return (
        []
        if legal
        else [Finding("TRD700", where, "windows outside the gap", f"{gap.before} to {gap.after}", str(mode))]
    )


def _check_home(plan: SpacesPlan, home: Home) -> list[Finding]:
    problem = plan.problem
    inside = 0 <= home.buffer < len(problem.buffers) and 0 < home.space < len(problem.spaces)
    where = f"home of buffer {home.buffer}"
    if not inside or problem.spaces[home.space].direct_bytes_per_s is None:
        return [Finding("TRD703", where, "operators cannot work there", "a space with a direct rate", str(home.space))]
    moved = any(move.buffer == home.buffer for move in plan.moves)
    twice = sum(other.buffer == home.buffer for other in plan.homes) > 1
    if problem.buffers[home.buffer].kept or moved or twice:
        return [Finding("TRD703", where, "a kept, moved or twice homed buffer has no home on chip")]
    return []


def _check_returns(plan: SpacesPlan) -> list[Finding]:
    problem = plan.problem
    findings: list[Finding] = []
    for each in plan.returns:
        known = 0 <= each.buffer < len(problem.buffers)
        if not known or not problem.buffers[each.buffer].uses[-1] < each.section < len(problem.sections):
            findings.append(Finding("TRD701", f"return of buffer {each.buffer}", "not after the buffer's last use"))
    if len(set(plan.returns)) != len(plan.returns):
        findings.append(Finding("TRD701", "returns", "a return is listed twice"))
    return findings


def _check_kept(plan: SpacesPlan) -> list[Finding]:
    """A kept buffer begins a step where it ended the one before: moved within it, it has to be moved at its end."""
    findings: list[Finding] = []
    for buffer in sorted({move.buffer for move in plan.moves}):
        uses = plan.problem.buffers[buffer].uses
        befores = {move.before for move in plan.moves if move.buffer == buffer}
        if plan.problem.buffers[buffer].kept and uses[-1] not in befores:
            findings.append(Finding("TRD702", f"buffer {buffer}", "moved within the step, but not after its last use"))
    return findings


def _check_reruns(plan: SpacesPlan) -> list[Finding]:
    again = [(move.buffer, move.mode.in_from) for move in plan.moves if move.mode.way is Way.RERUN]
    again += [(each.buffer, each.section) for each in plan.returns]
    findings: list[Finding] = []
    modes = {(move.buffer, move.before): move.mode for move in plan.moves}
    returned = set(plan.returns)
    for buffer, section in again:
        where = f"rerun of buffer {buffer} at section {section}"
        if not repeatable(plan.problem, buffer) or not fresh(plan.problem, buffer, section):
            findings.append(
                Finding("TRD701", where, "it cannot be made again: random, written later, or changed sources")
            )
        findings += [
            Finding("TRD701", where, "a buffer it is made from is not there", "in the main space", f"buffer {source}")
            for source in plan.problem.buffers[buffer].rerun_from
            if not _there(plan.problem, source, section, modes) and Return(source, section) not in returned
        ]
    return findings


def _there(problem: SpacesProblem, position: int, section: int, modes: dict[tuple[int, int], GapMode]) -> bool:
    """Whether a buffer's content can be read in a section."""
    buffer = problem.buffers[position]
    if section in buffer.uses:
        return True
    earlier = [use for use in buffer.uses if use < section]
    before = earlier[-1] if earlier else buffer.uses[-1]
    gap = gap_after(buffer, position, before)
    if gap is None or (not earlier and not buffer.kept):
        return False
    mode = modes.get((position, before))
    return mode is None or resident(gap, mode, section)


def _check_pieces(plan: SpacesPlan) -> list[Finding]:
    def key(piece: Piece) -> tuple[int, int, int, int]:
        return piece.buffer, piece.space, piece.lower, piece.upper

    expected, found = sorted(map(key, stays(plan))), sorted(map(key, plan.pieces))
    if expected != found:
        return [
            Finding("TRD704", "pieces", "stays are not those of the decisions", str(len(expected)), str(len(found)))
        ]
    return [finding for space in range(len(plan.problem.spaces)) for finding in check_offsets(offsets_of(plan, space))]


def offsets_of(plan: SpacesPlan, space: int) -> BuffersPlan:
    """Return the offsets of one space as a buffer layout (a space without stays has one empty byte)."""
    pieces = [piece for piece in plan.pieces if piece.space == space]
    problem = buffers_of(plan.problem, pieces, space)
    return BuffersPlan(problem, tuple(piece.offset_bytes for piece in pieces) or (0,))


def buffers_of(problem: SpacesProblem, pieces: list[Piece], space: int) -> BuffersProblem:
    """Return stays in one space as buffers with lifetimes."""
    buffers = tuple(
        Buffer(
            f"{problem.buffers[piece.buffer].id} @{piece.lower}",
            piece.lower,
            piece.upper,
            problem.buffers[piece.buffer].size_bytes,
        )
        for piece in pieces
    )
    return BuffersProblem(buffers or (Buffer("nothing", 0, 1, 1),), problem.spaces[space].capacity_bytes)
