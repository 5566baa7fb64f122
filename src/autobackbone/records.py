"""The frozen facts that travel between rooms, and nothing else.

Every record validates itself once, when it is made; deeper code trusts it. What users write in other forms
(`"10min"`, `(128, 160)`) is turned into a record at the door by the `as_…` functions.
"""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, get_args

from autobackbone.errors import BudgetError, DataError, LimitsError, TargetError
from autobackbone.timings import Timing, as_timings, read_timings

ImageSize = tuple[int, int]
"""Height and width in pixels."""

Resize = Literal["squash", "pad", "crop"]
"""How a picture is brought to an image size: `squash` keeps everything and changes the aspect ratio, `pad` keeps
everything and adds a border, `crop` keeps the aspect ratio and cuts the longer side."""

Precision = Literal["auto", "float32", "bfloat16", "float16"]
Runtime = Literal["torch", "torch.compile", "onnxruntime", "onnxruntime-int8", "openvino"]
"""What runs a network where its latency counts: torch, as it is or compiled; ONNX Runtime, also with 8-bit integers;
OpenVINO."""
TrialState = Literal["waiting", "running", "finished", "stopped", "failed"]
Part = Literal["train", "validation", "test"]
Task = Literal["classification", "regression", "multilabel"]
"""What the labels of a picture are: one class, one or several numbers, or several labels, each there or not."""
Balancing = Literal["none", "balanced"]
"""Whether classes that have fewer pictures are made to count as much as the others."""
Preference = Literal["accuracy", "speed", "balanced", "training_speed"]
"""What counts most in a trial of the front: see `Selection.select`."""
RefitOn = Literal["train", "train+val"]
"""The parts that a trial is trained on once more."""

_UNIT_SECONDS = {"s": 1, "sec": 1, "min": 60, "m": 60, "h": 3600, "hour": 3600, "hours": 3600, "d": 86400}
_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*")


# Three centuries: beyond it lies a mistake, and in the end what a float can hold.
_LONGEST_S = 1e10


def is_number(value: object) -> bool:
    """A number of Python or NumPy, and no truth value."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def is_whole(value: object) -> bool:
    """A whole number of Python or NumPy, and no truth value."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What a run may spend; it ends at whichever comes first.

    Args:
        wall_clock_s: seconds since the call, more than 0; `None` for no limit of time.
        n_trials: trials that the search may begin after screening, at least 0; `None` for no limit.

    Example:
        >>> Budget(wall_clock_s=600)
        Budget(wall_clock_s=600, n_trials=None)
    """

    wall_clock_s: float | None = None
    n_trials: int | None = None

    def __post_init__(self) -> None:
        if self.wall_clock_s is None and self.n_trials is None:
            raise BudgetError(
                "a budget needs wall_clock_s, n_trials or both; neither came. Try Budget(wall_clock_s=600)."
            )
        seconds = self.wall_clock_s
        if seconds is not None and (not is_number(seconds) or not 0 < seconds <= _LONGEST_S):
            raise BudgetError(f"wall_clock_s must be seconds above 0, at most {_LONGEST_S:.0e}, not {seconds!r}.")
        trials = self.n_trials
        if trials is not None and (not is_whole(trials) or trials < 0):
            raise BudgetError(f"n_trials must be a whole number of at least 0, not {trials!r}.")


def as_budget(value: Budget | float | str) -> Budget:
    """Read a budget in any form that users write.

    Example:
        >>> as_budget("10min") == as_budget(600) == Budget(wall_clock_s=600.0)
        True
        >>> as_budget("1h 30min").wall_clock_s
        5400.0
    """
    if isinstance(value, Budget):
        return value
    if isinstance(value, str):
        return Budget(wall_clock_s=_seconds(value))
    if not is_number(value):
        raise BudgetError(f"a budget is seconds, a text such as '10min', or Budget(…), not {value!r}.")
    return Budget(wall_clock_s=float(value) if 0 < value <= _LONGEST_S else value)


def _seconds(text: str) -> float:
    parts = _DURATION.findall(text)
    is_read = bool(parts) and _DURATION.sub("", text) == ""
    units = [unit.lower() or "s" for _, unit in parts]
    if not is_read or any(unit not in _UNIT_SECONDS for unit in units):
        raise BudgetError(f"cannot read {text!r} as a time. Write seconds, or a text such as '90s' or '1h 30min'.")
    return float(sum(float(number) * _UNIT_SECONDS[unit] for (number, _), unit in zip(parts, units, strict=True)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What deployment allows; `None` sets no limit. Checked before any training.

    Args:
        latency_ms: median milliseconds of one forward pass at the target's batch size.
        latency_p95_ms: its 95th percentile.
        n_params: parameters of the whole network, head included.
        megabytes: size of the saved float32 weights, 10**6 bytes.
    """

    latency_ms: float | None = None
    latency_p95_ms: float | None = None
    n_params: float | None = None
    megabytes: float | None = None

    def __post_init__(self) -> None:
        for name in ("latency_ms", "latency_p95_ms", "n_params", "megabytes"):
            value = getattr(self, name)
            if value is not None and (not is_number(value) or not value > 0):
                raise LimitsError(f"limits.{name} must be above 0, not {value!r}; leave it out for no limit.")

    def broken_by(self, has: Mapping[str, float | None]) -> str | None:
        """Which limit something breaks, in words; `None` if it keeps all.

        Args:
            has: its figures by the names of limits; one that is not known breaks none.

        Example:
            >>> Limits(latency_ms=10).broken_by({"latency_ms": 12.5})
            'latency_ms 12.5 is above the limit of 10'
        """
        for name, value in has.items():
            limit = getattr(self, name)
            if limit is not None and value is not None and value > limit:
                return f"{name} {value:,.4g} is above the limit of {limit:,g}"
        return None

    def excess_of(self, has: Mapping[str, float | None]) -> float:
        """How many times the limit that it breaks most something needs; 0 without limits.

        Args:
            has: its figures by the names of limits; infinite is what needs one that is not known.

        Example:
            >>> Limits(latency_ms=10, megabytes=30).excess_of({"latency_ms": 20.0, "megabytes": 15.0})
            2.0
        """
        needs = ((has.get(name), limit) for name, limit in asdict(self).items() if limit is not None)
        return max((math.inf if need is None else need / limit for need, limit in needs), default=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where the model will run.

    Args:
        device: `"auto"`, `"cpu"`, `"cuda"`, `"cuda:1"`, `"mps"`.
        batch_size: pictures in one forward pass when latency is measured, at least 1.
        precision: `"auto"` is float32 on a CPU and float16 on CUDA.
        n_threads: threads of one forward pass on a CPU; `None` takes all cores this process may use.
        runtime: what runs it there: `"torch"`; `"torch.compile"`, which takes up to minutes for each network before it
            can be timed; `"onnxruntime"`, or `"onnxruntime-int8"` with weights and activations of 8 bits, which need
            the extra `onnx`; `"openvino"`, which needs the extra `openvino`. These three run on the CPU. It is trained
            by torch in any case.
        timings: latencies that were measured on another machine, see `from_csv`; nothing is timed here then.
        name: what to call that machine.
    """

    device: str = "auto"
    batch_size: int = 1
    precision: Precision = "auto"
    n_threads: int | None = None
    runtime: Runtime = "torch"
    timings: tuple[Timing, ...] | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "timings", as_timings(self.timings))
        if self.runtime not in get_args(Runtime):
            raise TargetError(
                f"target.runtime must be {', '.join(map(repr, get_args(Runtime)))}, not {self.runtime!r}."
            )
        if not self.runtime.startswith("torch") and (
            self.device not in ("auto", "cpu") or self.precision not in ("auto", "float32")
        ):
            raise TargetError(
                f"target.runtime={self.runtime!r} runs on the CPU, from float32; device={self.device!r}, "
                f"precision={self.precision!r} came. Leave both out."
            )
        if self.name is not None and not isinstance(self.name, str):
            raise TargetError(f"target.name is a text, not {self.name!r}.")
        if re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", str(self.device)) is None:
            raise TargetError(f"target.device must be 'auto', 'cpu', 'mps', 'cuda' or 'cuda:N', not {self.device!r}.")
        if not is_whole(self.batch_size) or self.batch_size < 1:
            raise TargetError(f"target.batch_size must be a whole number of at least 1, not {self.batch_size!r}.")
        if self.precision not in ("auto", "float32", "bfloat16", "float16"):
            raise TargetError(
                f"target.precision must be 'auto', 'float32', 'bfloat16' or 'float16', not {self.precision!r}."
            )
        if self.n_threads is not None and (not is_whole(self.n_threads) or self.n_threads < 1):
            raise TargetError(f"target.n_threads must be a whole number of at least 1, not {self.n_threads!r}.")

    def __repr__(self) -> str:
        """As a dataclass has it, with timings counted."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        told = {name: repr(value) for name, value in values.items()}
        told |= {"timings": f"<{len(self.timings):,} of a table>"} if self.timings is not None else {}
        return f"Target({', '.join(f'{name}={value}' for name, value in told.items())})"

    @classmethod
    def from_csv(cls, path: str | Path, *, name: str | None = None) -> Target:
        """A target whose latencies were measured there: a phone, a board, any runtime.

        `autobackbone kit` writes networks to be timed, a script that does it, and the table. What has no row is left
        out of a search.

        Args:
            path: a CSV file with the columns `backbone`, `height`, `width` and `latency_ms`, median milliseconds; and
                perhaps `n_blocks_kept`, `latency_p95_ms` (the median stands for it, where it is not there) and
                `latency_noise_ms` (two per cent, where it is not there).
            name: what to call the machine; `None` for the name of the file.

        Raises:
            TargetError: it is no such file.
        """
        return cls(timings=read_timings(path), name=Path(path).stem if name is None else name)

    def to_json(self) -> dict[str, Any]:
        """Plain data that `from_json` reads; what is usual, and was not always there, is left out."""
        timings = self.timings and [asdict(one) | {"image_size": list(one.image_size)} for one in self.timings]
        noted = asdict(self) | {"timings": timings}
        usual = {"runtime": "torch", "timings": None, "name": None}
        return {key: value for key, value in noted.items() if key not in usual or value != usual[key]}

    @classmethod
    def from_json(cls, noted: Mapping[str, Any]) -> Target:
        """What `to_json` gave."""
        return cls(**noted)


@dataclass(frozen=True, slots=True, kw_only=True)
class Normalisation:
    """How pixels enter a backbone: resized by `interpolation`, then `(pixel / 255 - mean) / std` in each channel."""

    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    interpolation: Literal["bilinear", "bicubic", "nearest", "lanczos", "box", "hamming"] = "bicubic"


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneInfo:
    """The published facts of one backbone; `None` where nobody has published them.

    Args:
        name: as timm writes it, tag included: `resnet50.a1_in1k`.
        top1: ImageNet-1k accuracy in per cent, at `image_size`.
        gmacs: thousand million multiply-adds of one picture at `image_size`.
        file_megabytes: size of the weight file, 10**6 bytes.
        cpu_images_per_s: published single-picture speed on a desktop CPU.
        gpu_images_per_s: published large-batch speed on a GPU.
        licence_allows_commercial: `False` where the licence is unknown.
        source: where its weights can be had from here, `None` if from nowhere.
    """

    name: str
    family: str
    image_size: ImageSize
    n_params: int | None = None
    top1: float | None = None
    top5: float | None = None
    gmacs: float | None = None
    file_megabytes: float | None = None
    cpu_images_per_s: float | None = None
    gpu_images_per_s: float | None = None
    licence: str | None = None
    licence_allows_commercial: bool = False
    source: Literal["file", "package", "cache", "hub", "factory"] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """One backbone at one image size, measured alone on the target.

    Args:
        p50_ms: median milliseconds of one forward pass at the target's batch size.
        p95_ms: 95th percentile of the same.
        noise_ms: half-width within which two medians cannot be told apart.
        images_per_s: pictures per second at batch 32.
        n_repeats: timed passes behind `p50_ms`.
    """

    p50_ms: float
    p95_ms: float
    noise_ms: float
    images_per_s: float
    n_repeats: int


class Body(NamedTuple):
    """What a head stands on: a backbone at an image size, whole or only its first blocks.

    Args:
        backbone: timm's name, tag included.
        image_size: height and width in pixels.
        n_blocks_kept: how many first blocks; `None` for all of them.

    Example:
        >>> str(Body("resnet50.a1_in1k", (160, 160))), str(Body("resnet50.a1_in1k", (160, 160), 4))
        ('resnet50.a1_in1k at 160x160 px', 'resnet50.a1_in1k at 160x160 px, first 4 blocks')
    """

    backbone: str
    image_size: ImageSize
    n_blocks_kept: int | None = None

    @property
    def cut(self) -> str:
        """What is kept, in words to be put behind a name; nothing where that is all."""
        return "" if self.n_blocks_kept is None else f", first {counted(self.n_blocks_kept, 'block')}"

    def __str__(self) -> str:
        """In a few words."""
        return f"{self.backbone} at {self.image_size[0]}x{self.image_size[1]} px{self.cut}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Priced:
    """A body with what it costs to run; known before any training.

    Args:
        n_blocks: steps of depth that can be unfrozen.
        n_params: of the whole network, head included.
        megabytes: of its float32 weights, 10**6 bytes.
        preprocess_ms: median milliseconds from one of the user's pictures to pixels.
    """

    backbone: str
    image_size: ImageSize
    latency: Latency
    n_blocks: int
    n_params: int
    megabytes: float
    preprocess_ms: float | None = None
    n_blocks_kept: int | None = None

    @property
    def body(self) -> Body:
        """What it is."""
        return Body(self.backbone, self.image_size, self.n_blocks_kept)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """Something to try.

    Args:
        backbone: timm's name, tag included.
        image_size: height and width in pixels.
        n_unfrozen: trailing blocks that train, 0 for a pure feature extractor.
        lr: peak learning rate; `None` where nothing is trained by gradient.
        extras: further searched parameters by name, such as `weight_decay`.
        n_blocks_kept: only the backbone's first blocks are used; `None` for all.
    """

    backbone: str
    image_size: ImageSize
    n_unfrozen: int
    lr: float | None = None
    extras: Mapping[str, Any] = field(default_factory=dict)
    n_blocks_kept: int | None = None

    @property
    def body(self) -> Body:
        """What its head stands on."""
        return Body(self.backbone, self.image_size, self.n_blocks_kept)

    def begun(self, n_blocks: int, *, latency_ms: float | None = None) -> Trial:
        """A trial of it before anything is trained, its number 0; `n_blocks` as for a trial."""
        return Trial(
            number=0,
            state="running",
            reason="",
            **self.body._asdict(),
            n_unfrozen=self.n_unfrozen,
            n_blocks=n_blocks,
            lr=self.lr,
            score=None,
            latency_ms=latency_ms,
            extras=dict(self.extras),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A candidate that was tried, as the study remembers it; `score` has the metric's own sign and unit.

    Args:
        n_blocks: of its network: where only the first ones were kept, so many.
        n_blocks_kept: of the backbone; `None` for all.
        train_seconds: over all parts of its training.
        finished_at_s: seconds since the run began.
        score_se: standard error of the score, in its unit: how far other validation pictures could move it.
        fold_score: by folds over training and validation pictures, each scored by a network that was trained anew
            without it; where pictures are few.
        fold_se: its standard error.
        fold_score_low: lower end of its 95 % interval.
        fold_score_high: upper end of the same.
        balanced_score: balanced accuracy on the same pictures, where uneven classes flatter the score.
        test_score: on pictures that the search has not seen, in the same unit.
        test_score_low: lower end of its 95 % interval.
        test_score_high: upper end of the same.
        rung_scores: after each epoch.
        train_scores: of the training pictures as they passed in each epoch; of a frozen network one, of pictures that
            its head was fitted on. NaN where the score is not defined.
        rung_at_s: when each of them could be used, in seconds since the run began: a training that pauses leaves a
            network at its pause.
        overfits: whether its validation scores fell while the gap to the training scores grew.
    """

    number: int
    state: TrialState
    reason: str
    backbone: str
    image_size: ImageSize
    n_unfrozen: int
    n_blocks: int
    lr: float | None
    score: float | None
    latency_ms: float | None
    latency_p95_ms: float | None = None
    latency_noise_ms: float | None = None
    images_per_s: float | None = None
    preprocess_ms: float | None = None
    n_params: int | None = None
    megabytes: float | None = None
    train_seconds: float | None = None
    finished_at_s: float | None = None
    n_epochs: int = 0
    rung_scores: tuple[float, ...] = ()
    train_scores: tuple[float, ...] = ()
    rung_at_s: tuple[float, ...] = ()
    resize: Resize = "squash"
    extras: Mapping[str, Any] = field(default_factory=dict)
    on_front: bool = False
    overfits: bool = False
    score_se: float | None = None
    balanced_score: float | None = None
    test_score: float | None = None
    test_score_low: float | None = None
    test_score_high: float | None = None
    folder: str | None = None
    n_blocks_kept: int | None = None
    fold_score: float | None = None
    fold_se: float | None = None
    fold_score_low: float | None = None
    fold_score_high: float | None = None

    @property
    def body(self) -> Body:
        """What its head stands on."""
        return Body(self.backbone, self.image_size, self.n_blocks_kept)

    @property
    def is_paused(self) -> bool:
        """Whether it waits at a rung."""
        return self.state == "running" and bool(self.rung_scores)

    @property
    def shown_state(self) -> str:
        """As people are told it: of a trial that waits at a rung, nothing runs."""
        return "paused" if self.is_paused else self.state

    def __str__(self) -> str:
        """The trial in one line."""
        parts = [f"{self.n_unfrozen}/{self.n_blocks} unfrozen"]
        for value, text in (
            (self.lr, "lr {:.1e}"),
            (self.score, "score {:.4g}"),
            (self.test_score, "test {:.4g}"),
            (self.latency_ms, "{:.2f} ms"),
        ):
            parts += [] if value is None else [text.format(value)]
        return f"trial {self.number}, {self.shown_state}: {self.body}, {', '.join(parts)}"


def counted(n: int, noun: str) -> str:
    """A number with its noun.

    Example:
        >>> counted(1, "trial"), counted(1200, "trial")
        ('1 trial', '1,200 trials')
    """
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def shown_megabytes(megabytes: float) -> str:
    """A size as it is printed: of a small network more digits than of a large one.

    Example:
        >>> [shown_megabytes(value) for value in (102.23, 0.07, 0.001)]
        ['102.2', '0.07', '<0.01']
    """
    if megabytes >= 1:
        return f"{megabytes:.1f}"
    return f"{megabytes:.2f}" if megabytes >= 0.005 else "<0.01"


def as_image_sizes(value: Sequence[int | Sequence[int]] | int | None) -> tuple[ImageSize, ...] | None:
    """Read image sizes in any form that users write.

    Example:
        >>> as_image_sizes([128, (160, 224)])
        ((128, 128), (160, 224))
    """
    if value is None:
        return None
    items: Sequence[int | Sequence[int]] = [value] if isinstance(value, int) else value
    if not isinstance(items, Sequence) or isinstance(items, str) or not items:
        raise DataError(f"image_sizes is a list such as [128, 160] or [(160, 224)], or None; {value!r} came.")
    return tuple(dict.fromkeys(_image_size(item) for item in items))


def _image_size(item: int | Sequence[int]) -> ImageSize:
    pair = (item, item) if isinstance(item, int) else tuple(item) if isinstance(item, Sequence) else ()
    if len(pair) != 2 or not all(isinstance(side, int) and 8 <= side <= 4096 for side in pair):
        raise DataError(f"an image size is pixels, or (height, width), each from 8 to 4096; {item!r} came.")
    return (pair[0], pair[1])


class Evaluator(Protocol):
    """Tries candidates for the search: really, or from a table."""

    def n_epochs(self, candidate: Candidate) -> int:
        """The last rung: how long a candidate trains if there is time."""

    def expected_s(self, candidate: Candidate, *, n_before: int = 0, n_epochs: int | None = None) -> float:
        """Seconds that a candidate trains from one epoch to another; `None` is the shortest useful end."""

    def begin(self, candidate: Candidate) -> Trial:
        """What is known of a candidate before it is trained: its latency, size, depth. Its number is 0."""

    def is_priced(self, candidate: Candidate) -> bool:
        """Whether `begin` has nothing to measure: a clock is only believed while nothing is trained beside it."""

    def ready(
        self, number: int, candidate: Candidate, until: float | None, *, n_before: int = 0, pause_at: int | None = None
    ) -> Training:
        """Make ready to train a candidate; its files will lie under its number.

        Args:
            number: of the trial.
            candidate: what is tried.
            until: `time.monotonic()` by which it has ended; `None` for no limit of time.
            n_before: epochs that it has been trained already: it goes on from there.
            pause_at: the epoch after which it pauses, still running; `None` trains it to its end.

        Raises:
            TrialError: it cannot be trained, for the reason that is said.
        """

    def give_up(self) -> None:
        """End whatever is being trained in other threads; nothing will be trained any more."""


class Training(Protocol):
    """One leg of a trial, ready to be trained: that alone may be done in another thread."""

    def train(self) -> Any:
        """Train, in any thread; what comes out is for `finished` alone.

        Raises:
            TrialError: it failed, for the reason that is said.
        """

    def finished(self, wait: Callable[[], Any]) -> Trial:
        """Score what was trained, and keep its files; in the thread that made it ready.

        Args:
            wait: gives what `train` gave, or raises what it raised: `train` itself, or the result of a future.

        Raises:
            TrialError: it failed, for the reason that is said.
        """


class Measured(Protocol):
    """Anything with a score and a latency: what the front is drawn through."""

    @property
    def score(self) -> float | None:
        """In the metric's own sign and unit."""

    @property
    def latency_ms(self) -> float | None:
        """Median milliseconds of one forward pass on the target."""
