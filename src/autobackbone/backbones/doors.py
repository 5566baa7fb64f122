"""What enters the modules of a network while it runs, read at their doors."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Mapping

    from torch import nn

Key = TypeVar("Key", bound="Hashable")


@contextmanager
def read_at_doors(model: nn.Module, reads: Mapping[Key, tuple[str, Callable[[Any], Any]]]) -> Iterator[dict[Key, Any]]:
    """While this lasts, each pass of the network fills the dictionary, in the order of the calls.

    Args:
        model: any network.
        reads: by key, the name of a module and what is made of the first thing that enters it. Made at once: a layer
            behind the door may work in place, so that what shall last is a copy.

    Example:
        >>> import torch
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))
        >>> with read_at_doors(model, {"wide": ("1", lambda entering: entering.shape)}) as seen:
        ...     _ = model(torch.zeros(3, 2, 2))
        >>> seen
        {'wide': torch.Size([3, 4])}
    """
    seen: dict[Key, Any] = {}
    with ExitStack() as stack:
        for key, (name, read) in reads.items():

            def look(_: nn.Module, arguments: tuple[Any, ...], key: Key = key, read: Any = read) -> None:
                seen[key] = read(arguments[0])

            stack.callback(model.get_submodule(name).register_forward_pre_hook(look).remove)
        yield seen
