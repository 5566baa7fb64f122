"""A run on disk: where each thing lies, who holds it, and what may be written.

    run.json            facts of the run that no trial knows: format, arguments, target, data
    pictures.csv        name, label and part of each picture
    similar.csv         validation pictures that look like training pictures
    costs.jsonl         what was measured and settled by the clock, in its order
    study.db            the Optuna study: all that is known of the trials, unless a server holds it
    trials/<number>/    weights and predictions of one trial
    front.png           the picture of the front
    .worker/            what crosses between the run and its worker process, while there is one
    lock                held by the one process that works on the run

Paths inside are relative, so that a run can be moved.
"""

from __future__ import annotations

import errno
import json
import os
import reprlib
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, get_args

from filelock import FileLock, Timeout

from autobackbone.errors import LimitsError, RunError, RunLockedError
from autobackbone.records import Limits, Task, as_image_sizes
from autobackbone.showing import harmless

FORMAT_VERSION = 1
# Ends the names of files that are being written.
_ASIDE = ".part"
# A full disk, a full quota (which Windows does not name), a file larger than allowed.
FULL = frozenset({errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)})
# A disk or a folder that takes nothing, whatever its room.
_CLOSED = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFolder:
    """The layout of one run; making the record touches no disk."""

    path: Path

    @property
    def facts_file(self) -> Path:
        """What no trial knows, as JSON."""
        return self.path / "run.json"

    @property
    def pictures_file(self) -> Path:
        """Name, label and part of each picture."""
        return self.path / "pictures.csv"

    @property
    def similar_file(self) -> Path:
        """Validation pictures that look like training pictures."""
        return self.path / "similar.csv"

    @property
    def costs_file(self) -> Path:
        """What was measured and settled by the clock, one JSON object a line."""
        return self.path / "costs.jsonl"

    @property
    def study_file(self) -> Path:
        """The SQLite file of the study, unless a server holds it."""
        return self.path / "study.db"

    @property
    def figure_file(self) -> Path:
        """The picture of the front."""
        return self.path / "front.png"

    @property
    def worker_folder(self) -> Path:
        """What crosses between the run and its worker process; there only while it trains."""
        return self.path / ".worker"

    def trial_folder(self, number: int) -> Path:
        """Where the files of one trial lie."""
        return self.path / "trials" / f"{number:04d}"

    def exists(self) -> bool:
        """Whether a run has been begun here."""
        return self.facts_file.is_file()

    def read_facts(self) -> dict[str, Any]:
        """The facts of the run.

        Raises:
            RunError: there is no run here, it cannot be read, its format is newer than this version knows, or a fact is
                missing or of another kind, as after a slip of an editor.
        """
        if not self.exists():
            raise RunError(f"{str(self.path)!r} holds no run: it has no run.json. Give the folder that a search made.")
        try:
            facts = json.loads(self.facts_file.read_text(encoding="utf-8"))
            version = int(facts["format_version"])
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise RunError(f"{str(self.facts_file)!r} cannot be read ({error}); the run is damaged.") from error
        if version > FORMAT_VERSION:
            raise RunError(
                f"{str(self.path)!r} has run format {version}, and this version reads up to {FORMAT_VERSION}. "
                "Update autobackbone."
            )
        for name, (kind, is_right) in _FACTS.items():
            if name not in facts or not is_right(facts[name]):
                came = f"{reprlib.repr(facts[name])} came" if name in facts else "it is missing"
                raise self.damaged(f"{name!r} must be {kind}, and {came}")
        return dict(facts)

    def damaged(self, why: str) -> RunError:
        """The error for facts that cannot be used."""
        return RunError(
            f"{str(self.facts_file)!r} is damaged: {why}. Put it back as the search wrote it, or search again."
        )

    def unwritable(self, why: object, *, is_full: bool) -> RunError:
        """The error for a run that cannot go on for its disk: what is kept, and how it goes on.

        Args:
            why: what the system, or SQLite, said.
            is_full: whether it lacks room, or else rights.
        """
        has_begun = self.exists()
        kept = "What had ended is kept, and open_run opens it." if has_begun else "Nothing was tried yet."
        remedy = "Free some of its disk" if is_full else "Let this user write there"
        return RunError(
            f"the run {str(self.path)!r} {'has no room' if is_full else 'cannot be written'}: {why}. {kept} {remedy}, "
            f"and the same call with this run_dir {'goes on' if has_begun else 'begins'}; or give another run_dir."
        )

    def write_facts(self, facts: Mapping[str, Any]) -> None:
        """Write the facts of the run, whole or not at all."""
        write_text(self.facts_file, json.dumps({"format_version": FORMAT_VERSION, **facts}, indent=1, sort_keys=True))

    def has_trial_files(self) -> bool:
        """Whether any trial has left a file here."""
        return any((self.path / "trials").glob("*/*"))

    def require_study(self) -> None:
        """Make sure that trials which have files are in a study: a new study would count them anew.

        Raises:
            RunError: there are files of trials, and no study.
        """
        is_missing = not self.study_file.is_file() or self.study_file.stat().st_size == 0
        if is_missing and self.has_trial_files():
            raise RunError(
                f"{str(self.study_file)!r} is missing or empty, and there are files of trials beside it. Put it back, "
                "or give another run_dir."
            )

    def require_inside(self, paths: Iterable[Path]) -> None:
        """Make sure that what is written here stays here: a link that came with a folder may lead anywhere.

        Args:
            paths: of the run, folders before what is in them.

        Raises:
            RunError: one leads out of the run folder.
        """
        whole = self.path.resolve()
        for path in paths:
            if path.is_symlink() and not _target(path).is_relative_to(whole):
                raise RunError(
                    f"{str(path)!r} is a link that leads out of the run folder to {str(path.readlink())!r}, and a run "
                    "is written into its own folder alone. Put a copy in the link's place (`cp -rL`), or give another "
                    "run_dir."
                )

    def remove_trial_files(self, number: int, *names: str) -> None:
        """Remove the named files of a trial, all of them if none is named."""
        folder = self.trial_folder(number)
        if not names:
            shutil.rmtree(folder, ignore_errors=True)
        for name in names:
            (folder / name).unlink(missing_ok=True)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the run while working on it; the operating system lets go if this process dies.

        Raises:
            RunLockedError: another process holds it.
            RunError: the folder cannot be made or written, now or while it is held, or a link in it leads out of it.
        """
        lock = FileLock(self.path / "lock", timeout=0)
        holder = self.path / "lock.holder"
        try:
            self.require_inside(self._written())
            self.path.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except Timeout as error:
            by = (
                harmless(holder.read_text(encoding="utf-8", errors="replace"))
                if holder.is_file()
                else "another process"
            )
            raise RunLockedError(
                f"the run {str(self.path)!r} is being worked on by {by}. Wait for it, or give another run_dir."
            ) from error
        except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
            if isinstance(error, OSError) and error.errno in FULL:
                raise self.unwritable(error, is_full=True) from error
            raise RunError(f"cannot write a run to {str(self.path)!r}: {error}. Give another run_dir.") from error
        try:
            self._remove_litter()
            write_text(holder, f"process {os.getpid()}")
            yield
        except OSError as error:
            if not self._is_of(error):
                raise
            raise self.unwritable(error, is_full=error.errno in FULL) from error
        finally:
            with suppress(OSError):  # of a disk that takes nothing any more; what went wrong first is told
                holder.unlink(missing_ok=True)
            lock.release()

    def _written(self) -> Iterator[Path]:
        """What a run writes or removes, folders before what is in them."""
        yield from (self.facts_file, self.pictures_file, self.similar_file, self.costs_file, self.figure_file)
        yield from (self.study_file, self.path / f"{self.study_file.name}-journal")
        yield from (self.path / "lock", self.path / "lock.holder", self.path / "trials")
        yield from self.path.glob("trials/*")
        yield from self.path.glob("trials/*/*")

    def _is_of(self, error: OSError) -> bool:
        """Whether an error says that a file of this run cannot be written."""
        if error.errno not in FULL | _CLOSED or not isinstance(error.filename, (str, bytes)):
            return False
        return Path(os.path.abspath(os.fsdecode(error.filename))).is_relative_to(os.path.abspath(self.path))  # noqa: PTH100  links stay

    def _remove_litter(self) -> None:
        """Remove what killed processes were writing: who holds the lock is alone. Nothing else here is ours."""
        own = (self.facts_file, self.pictures_file, self.similar_file, self.figure_file, self.path / "lock.holder")
        for pattern in (*(f".{file.name}.*{_ASIDE}" for file in own), f"trials/*/.*{_ASIDE}"):
            for file in self.path.glob(pattern):
                file.unlink(missing_ok=True)
        shutil.rmtree(self.worker_folder, ignore_errors=True)


def _target(link: Path) -> Path:
    """Where a link leads; one that leads round in circles, to itself."""
    try:
        return link.resolve()
    except (OSError, RuntimeError):
        return link.absolute()


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_mapping(value: Any) -> bool:
    return isinstance(value, dict)


def _is_tolerance(value: Any) -> bool:
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0)


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _are_classes(value: Any) -> bool:
    return isinstance(value, list) and len(value) >= 1 and all(isinstance(one, (str, int)) for one in value)


def _are_limits(value: Any) -> bool:
    try:
        Limits(**value)
    except (TypeError, LimitsError):
        return False
    return True


def _are_image_sizes(value: Any) -> bool:
    try:
        return all(_is_text(name) and as_image_sizes(sizes) == tuple(map(tuple, sizes)) for name, sizes in value)
    except (TypeError, ValueError):
        return False


def _are_weights(value: Any) -> bool:
    return value is None or _is_text(value) or (_is_mapping(value) and all(map(_is_text, value.values())))


# What a run must tell to be opened and continued: in words, and as a check.
_FACTS: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "arguments": ("a mapping", _is_mapping),
    "classes": ("a list of at least one name or number", _are_classes),
    "data_digest": ("a text", _is_text),
    "hardware": ("a mapping", _is_mapping),
    "image_sizes": ("a list of [backbone, [[height, width], …]]", _are_image_sizes),
    "limits": ("a mapping of limits to numbers or null", _are_limits),
    "metric": ("a text", _is_text),
    "notes": ("a list of texts", _are_texts),
    "preparation": ("a mapping", _is_mapping),
    "split_digest": ("a text", _is_text),
    "target_line": ("a text", _is_text),
    "task": (f"a task of {', '.join(get_args(Task))}", get_args(Task).__contains__),
    "tolerance": ("a number of at least 0 or null", _is_tolerance),
    "weights": ("a path, a mapping of backbones to paths, or null", _are_weights),
}


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a name beside a file for its content, which takes its place at the end; an error leaves nothing."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_ASIDE}")
    try:
        yield temporary
        temporary.replace(path)
    except BaseException as error:
        # Where nothing can be written nothing can be removed: what went wrong first is told.
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        # A file that is full names itself only when it is opened, and nobody asked for the one beside it.
        if isinstance(error, OSError) and error.errno is not None and error.filename in (None, str(temporary)):
            error.filename = str(path)
        raise


@contextmanager
def full_disk_told(by: Callable[[Exception], Exception], *others: type[Exception]) -> Iterator[None]:
    """Tell of a disk, a quota or a largest file that is too small by an error of the caller's own.

    Args:
        by: from what the system said to that error.
        others: of libraries that tell of it in their own way.
    """
    kinds: tuple[type[Exception], ...] = (OSError, *others)
    try:
        yield
    except kinds as error:
        if isinstance(error, OSError) and error.errno not in FULL:
            raise
        raise by(error) from error


def remove_unfinished(path: Path) -> None:
    """Remove what a process that was ended was writing beside a file, which nobody else writes."""
    for temporary in path.parent.glob(f".{path.name}.*{_ASIDE}"):
        temporary.unlink(missing_ok=True)


def new_run_path(parent: Path, now: datetime) -> Path:
    """A new, dated folder name under `parent` that nobody has taken."""
    stem = now.strftime("%Y-%m-%d_%H-%M-%S")
    names = (stem, *(f"{stem}_{number}" for number in range(2, 1000)))
    return next(parent / name for name in names if not (parent / name).exists())


def cache_folder() -> Path:
    """Where stores that can be made again lie: `$AUTOBACKBONE_CACHE`, else the user's cache folder."""
    named = os.environ.get("AUTOBACKBONE_CACHE")
    base = os.environ.get("XDG_CACHE_HOME")
    return Path(named) if named else (Path(base) if base else Path.home() / ".cache") / "autobackbone"
