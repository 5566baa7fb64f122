"""On large data: who is worth a pass over all pictures, told by a fair part of them that grows for those that stay."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from autobackbone.records import Body
from autobackbone.search.rungs import Curve, leading

# Fewer say little: a fifth of them are for scoring, and a share of 400 is known to two points.
_LEAST_PICTURES = 2_000
# The part grows by so much from round to round: all rounds before cost a winner a third of its own pass.
_GROWTH = 4
# Of the time for screening, what all rounds may take.
_SHARE = 1 / 3
# Of that, the first round: the next one is for half as many pairs, four times as long each.
_FIRST_SHARE = 1 / 3
# Beside its pass: building a network, measuring its latency, fitting its head.
_LOOK_S = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scouts:
    """What scouting is done with.

    Args:
        n_pictures: training and validation pictures.
        pass_s: seconds that a body's pass over all of them is expected to take.
        left_s: seconds that are left for all of screening.
        look: passes a body over so many of the pictures, in at most so many seconds; `None` where that gave no score.
        say: told once, what is done and why.
    """

    n_pictures: int
    pass_s: Callable[[Body], float]
    left_s: Callable[[], float]
    look: Callable[[Body, int, float], Curve | None]
    say: Callable[[str], None]

    def look_s(self, bodies: Sequence[Body], n: int) -> float:
        """Seconds that looking at them over so many pictures is expected to take."""
        return sum(self.pass_s(body) * n / self.n_pictures + _LOOK_S for body in bodies)


def scouted(bodies: Sequence[Body], scouts: Scouts) -> list[Body]:
    """The bodies in the order in which they should be screened: those that a part of the pictures speaks for first.

    Where a pass of each over all pictures fits the time, or where there are too few pictures for a part of them to tell
    anything, nothing is looked at and the order stays. Else each round looks at a part that is four times as large as
    the one before, with the better half by score and latency of those in the round before. Whose own pass would not
    fit beside that, or who gave no score, comes last.

    Args:
        bodies: whole ones, in the usual order.
        scouts: how they are looked at.
    """
    left_s, n_pictures = scouts.left_s(), scouts.n_pictures
    whole_s = sum(map(scouts.pass_s, bodies))
    # Whatever was forecast: by then looking has an end.
    end_s = (1 - _SHARE) * left_s
    fitting = [body for body in bodies if scouts.pass_s(body) <= end_s]
    if len(fitting) < 2 or n_pictures < _GROWTH * _LEAST_PICTURES or whole_s <= left_s:
        return list(bodies)
    n, first_s = n_pictures // _GROWTH, _FIRST_SHARE * _SHARE * left_s
    while n >= _GROWTH * _LEAST_PICTURES and scouts.look_s(fitting, n) > first_s:
        n //= _GROWTH
    # Those that are left out of the smallest of first rounds, which may then take all there is for looking.
    while len(fitting) > 1 and scouts.look_s(fitting, n) > _SHARE * left_s:
        fitting.pop()
    if len(fitting) < 2:
        return list(bodies)
    scouts.say(
        f"passes of {len(bodies)} pairs over {n_pictures:,} pictures would take about {whole_s:,.0f} s, and "
        f"screening has {left_s:,.0f} s: {len(fitting)} are compared on {n:,} pictures first"
    )
    stay, behind = fitting, list[Body]()
    while True:
        seen = _seen(stay, n, end_s, scouts)
        best = leading(list(seen.values()), 1, -(-len(seen) // 2))
        # Who was not seen for lack of time is as good a guess as who was beaten now, and better than who was before.
        behind = [*(body for body in stay if body not in seen or seen[body].number not in best), *behind]
        stay = [body for body in stay if body not in behind]
        n *= _GROWTH
        time_s = scouts.left_s() - end_s
        if len(stay) < 2 or n > n_pictures // _GROWTH or scouts.look_s(stay, n) > time_s:
            break
    return [*stay, *behind, *(body for body in bodies if body not in stay and body not in behind)]


def _seen(bodies: Sequence[Body], n: int, end_s: float, scouts: Scouts) -> dict[Body, Curve]:
    """Those that gave a score before time for looking was over."""
    found: dict[Body, Curve] = {}
    for body in bodies:
        time_s = scouts.left_s() - end_s
        curve = scouts.look(body, n, time_s) if time_s > 0 else None
        if curve is not None:
            found[body] = curve
    return found
