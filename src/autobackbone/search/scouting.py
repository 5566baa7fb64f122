"""On large data: who is worth a pass over all pictures, told by a fair part of them that grows for those that stay."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from autobackbone.records import Body
from autobackbone.search.rungs import Curve, leading

# Fewer say little: a fifth of them are for scoring, and a share of 400 is known to two points.
_LEAST_PICTURES = 2_000
# The part grows by so much from round to round: all rounds before cost a winner a third of its own pass.
_GROWTH = 4
# Of the time for screening, what all rounds may take.
_SHARE = 1 / 3
# Beside its pass: building a network, measuring its latency, fitting its head.
_LOOK_S = 3.0


def scouted(
    bodies: Sequence[Body],
    *,
    n_pictures: int,
    pass_s: Callable[[Body], float],
    left_s: float,
    look: Callable[[Body, int], Curve | None],
    say: Callable[[str], None],
) -> list[Body]:
    """The bodies in the order in which they should be screened: those that a part of the pictures speaks for first.

    Where a pass of each over all pictures fits the time, or where there are too few pictures for a part of them to tell
    anything, nothing is looked at and the order stays. Else each round looks at a part that is four times as large as
    the one before, with the better half by score and latency of those in the round before.

    Args:
        bodies: whole ones, in the usual order.
        n_pictures: training and validation pictures.
        pass_s: seconds that a body's pass over all of them is expected to take.
        left_s: seconds for all of screening.
        look: passes a body over so many of the pictures; `None` where that gave no score.
        say: told once, what is done and why.
    """
    whole_s = sum(map(pass_s, bodies))
    if len(bodies) < 2 or n_pictures < _GROWTH * _LEAST_PICTURES or whole_s <= left_s:
        return list(bodies)

    def look_s(body: Body, n: int) -> float:
        return pass_s(body) * n / n_pictures + _LOOK_S

    allowed_s, n = _SHARE * left_s, n_pictures // _GROWTH
    # The first round takes half of what all may take: those after it are for half as many, four times as long each.
    while n >= _GROWTH * _LEAST_PICTURES and sum(look_s(body, n) for body in bodies) > allowed_s / 2:
        n //= _GROWTH
    round_, unseen = _fitting(bodies, allowed_s, lambda body: look_s(body, n))
    if len(round_) < 2:
        return list(bodies)
    say(
        f"passes of all {len(bodies)} pairs over {n_pictures:,} pictures would take about {whole_s:,.0f} s, and "
        f"screening has {left_s:,.0f} s: {len(round_)} are compared on {n:,} pictures first"
    )
    beaten: list[Body] = []
    while True:
        allowed_s -= sum(look_s(body, n) for body in round_)
        stay = _better_half(round_, n, look)
        beaten = [*(body for body in round_ if body not in stay), *beaten]
        n *= _GROWTH
        if len(stay) == 1 or n >= n_pictures or sum(look_s(body, n) for body in stay) > allowed_s:
            return [*stay, *unseen, *beaten]
        round_ = stay


def _fitting(
    bodies: Sequence[Body], allowed_s: float, seconds: Callable[[Body], float]
) -> tuple[list[Body], list[Body]]:
    """As many of the first ones as fit, and the others."""
    for n in range(len(bodies), 0, -1):
        if sum(map(seconds, bodies[:n])) <= allowed_s:
            return list(bodies[:n]), list(bodies[n:])
    return [], list(bodies)


def _better_half(bodies: Sequence[Body], n: int, look: Callable[[Body, int], Curve | None]) -> list[Body]:
    """Half of them, rounded up, by non-domination; who gave no score stays, and tells why when its turn comes."""
    curves = {body: look(body, n) for body in bodies}
    scored = [curve for curve in curves.values() if curve is not None]
    best = leading(scored, 1, -(-len(scored) // 2))
    return [body for body, curve in curves.items() if curve is None or curve.number in best]
