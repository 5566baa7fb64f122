"""Legs in flight: several are trained side by side, each in a thread of its own, and all else in the one that asks."""

from __future__ import annotations

from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Any, Self

from autobackbone.search.steps import Flight, Search, land


class Flights:
    """What is being trained now. To be used in a `with`: where that ends by an error, or by Ctrl-C, all of it is given
    up, and the study keeps it as it was before its leg.

    Where one leg at a time is all there may be, it is trained in this very thread, as it lands.

    Args:
        search: of the legs.
    """

    def __init__(self, search: Search) -> None:
        self._search = search
        self._flying: dict[int, tuple[Flight, Future[Any] | None]] = {}
        self._n_most = search.n_at_once()
        is_alone = self._n_most == 1
        self._threads = None if is_alone else ThreadPoolExecutor(self._n_most, thread_name_prefix="training")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._threads is None:
            return
        if kind is not None:
            self._search.evaluator.give_up()
        self._threads.shutdown(cancel_futures=True)

    @property
    def numbers(self) -> frozenset[int]:
        """The numbers of their trials."""
        return frozenset(self._flying)

    @property
    def is_full(self) -> bool:
        """Whether no further one can begin before another has landed."""
        return len(self._flying) >= min(self._n_most, self._search.n_at_once())

    def begin(self, flight: Flight) -> None:
        """Have one trained."""
        future = None if self._threads is None else self._threads.submit(flight.training.train)
        self._flying[flight.known.number] = flight, future

    def land(self) -> int:
        """Wait for the first one to be trained; score it, and whatever else is ready, and tell the study.

        Returns:
            How many trials that began with such a leg did not come to anything for want of time, and so do not count.
        """
        return sum(self._land(number) for number in self._ready())

    def land_all(self) -> int:
        """As `land`, until nothing is in flight."""
        n_void = 0
        while self._flying:
            n_void += self.land()
        return n_void

    def _ready(self) -> list[int]:
        """By number, so that who comes first does not hang on a set's order."""
        futures = {future: number for number, (_, future) in self._flying.items() if future is not None}
        if not futures:
            return sorted(self._flying)
        done, _ = wait(futures, return_when=FIRST_COMPLETED)
        return sorted(futures[future] for future in done)

    def _land(self, number: int) -> bool:
        flight, future = self._flying[number]
        state = land(self._search, flight, flight.training.train if future is None else future.result)
        del self._flying[number]
        return flight.is_first and state == "stopped"
