"""A run in words for whoever has not made one before: only what it has measured, each difference with its noise."""

from __future__ import annotations

import math
import statistics
import textwrap
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from autobackbone.choosing import fitted_on, name_of, scored_on, that_keep
from autobackbone.errors import MetricError, RunError
from autobackbone.metrics import paired_interval, scale_of, score, shown, to_maximised
from autobackbone.optimism import unconfirmed
from autobackbone.records import Limits, Trial, counted
from autobackbone.replaying import going_on
from autobackbone.reports.seen import RunSeen, Said, said_part
from autobackbone.showing import harmless

_WIDTH = 100
# So many bodies are told of one by one.
_N_BODIES = 6
# Reasons of trials that did not finish, the most frequent.
_N_REASONS = 4
# Fewer rates than that make no thirds.
_FEWEST_RATES = 6


def explanation(seen: RunSeen) -> str:
    """The whole text, in paragraphs under headings; lines are at most 100 characters wide."""
    sections = (
        ("What was asked", _asked(seen)),
        ("Which networks were considered", _considered(seen)),
        ("What was tried", _tried(seen)),
        ("What freezing more or less did", _depths(seen)),
        ("What the image size did", _sizes(seen)),
        ("What the learning rate did", _rates(seen)),
        ("What was chosen, and why", _chosen(seen)),
        ("What to try with more time", _further(seen)),
    )
    return "\n\n".join(_section(title, list(lines)) for title, lines in sections)


def _section(title: str, lines: Sequence[str]) -> str:
    told = [_wrapped(harmless(line)) for line in lines]
    return "\n".join([title, "-" * len(title), *told])


def _wrapped(line: str) -> str:
    indent = "    " if line.startswith("- ") else ""
    return textwrap.fill(line, _WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _asked(seen: RunSeen) -> Iterator[str]:
    n, metric = len(seen.classes), seen.metric
    tells = {
        "classification": f"tells {n:,} classes apart",
        "multilabel": f"finds which of {counted(n, 'label')} a picture has",
        "regression": f"predicts {counted(n, 'number')} from a picture",
    }[seen.reader.task]
    better = "higher" if metric.is_higher_better else "lower"
    yield (
        f"Wanted was a network that {tells}. Pre-trained networks were taken, which have learned to see on millions of "
        "other pictures, and their last layer was replaced by one for this task, the head."
    )
    yield (
        f"The score is {metric.name} on pictures that were kept apart for validation; {better} is better. The latency "
        f"is the time of one pass on {seen.target}."
    )
    limits = [f"{name} {value:g}" for name, value in seen.facts["limits"].items() if value is not None]
    if limits:
        of_run = Limits(**seen.facts["limits"])
        is_kept = that_keep(seen.finished, of_run)
        left_out = "what breaks one was left out" if is_kept else "nothing that was tried keeps them"
        yield f"There were limits: {', '.join(limits)}; {left_out}."


def _considered(seen: RunSeen) -> Iterator[str]:
    n_pairs = sum(map(len, seen.image_sizes.values()))
    yield (f"{counted(len(seen.image_sizes), 'network')} could be chosen from, {n_pairs:,} with their image sizes:")
    for name, sizes in seen.image_sizes.items():
        px = ", ".join(_sized(size) for size in sizes)
        why = seen.whys.get(name)
        yield f"- {name} at {px} px" + (f": {why}" if why else "")
    screened = {(trial.backbone, trial.image_size) for trial in seen.trials}
    n_left = n_pairs - len(screened & {(name, size) for name, of in seen.image_sizes.items() for size in of})
    if n_left:
        yield _not_tried(seen, n_left, n_pairs)
    for note in seen.facts["notes"]:
        yield f"- noted: {note}"


def _not_tried(seen: RunSeen, n_left: int, n_pairs: int) -> str:
    """How many pairs, and why, as far as the run knows."""
    were = "was" if n_left == 1 else "were"
    told = f"{n_left:,} of these {counted(n_pairs, 'pair')} {were} not tried"
    if seen.n_untimely is None:
        return f"{told}: the search had not come to the end of screening." if not seen.has_ended else f"{told}."
    n_short = min(seen.n_untimely, n_left)
    others = "promised less, broke a limit, or could not be screened, as the lines of the search said"
    if n_short == n_left:
        return f"{told} for want of time."
    if n_short == 0:
        return f"{told}: {'it' if n_left == 1 else 'they'} {others}."
    return f"{told}: {n_short:,} for want of time, the others {others}."


def _tried(seen: RunSeen) -> Iterator[str]:
    states = Counter(trial.shown_state for trial in seen.trials)
    if not seen.trials:
        yield "Nothing yet."
        return
    frozen = [trial for trial in seen.finished if trial.n_unfrozen == 0]
    tuned = [trial for trial in seen.finished if trial.n_unfrozen > 0]
    yield f"{counted(len(seen.trials), 'trial')}: {', '.join(f'{n} {state}' for state, n in states.items())}."
    if frozen:
        each = "it" if len(frozen) == 1 else "each"
        yield (
            f"First came {counted(len(frozen), 'frozen network')}: {each} stayed as it was, and its head alone was "
            f"fitted, which is cheap. {_range(seen, frozen)}"
        )
    if tuned:
        were, of_each = ("was", "its last blocks") if len(tuned) == 1 else ("were", "the last blocks of each")
        came = ""
        if len(tuned) > 1:
            came = " What came next was proposed by the search (Optuna), from what had gone well before."
        yield (
            f"Then {counted(len(tuned), 'network')} {were} fine-tuned, {of_each} trained on these pictures, beginning "
            f"from the fitted head.{came} {_range(seen, tuned)}"
        )
    else:
        yield "None was fine-tuned to its end."
    for state in ("stopped", "failed"):
        reasons = Counter(trial.reason or "no reason was noted" for trial in seen.trials if trial.state == state)
        for reason, n in reasons.most_common(_N_REASONS):
            yield f"- {counted(n, 'trial')} {state}: {reason}"


def _depths(seen: RunSeen) -> Iterator[str]:
    """Of each body frozen and tuned, on the same pictures."""
    told = 0
    for body, of in _by_body(seen):
        frozen = [trial for trial in of if trial.n_unfrozen == 0]
        tuned = [trial for trial in of if trial.n_unfrozen > 0]
        if not frozen or not tuned:
            continue
        told += 1
        if told > _N_BODIES:
            yield "… and others, which the report shows."
            return
        yield f"{body}, with {counted(of[0].n_blocks, 'block')}:"
        for depth in sorted({trial.n_unfrozen for trial in of}):
            at = [trial for trial in of if trial.n_unfrozen == depth]
            best = _top(seen, at)
            words = "frozen" if depth == 0 else f"{counted(depth, 'block')} trained"
            many = f", the best of {len(at)}" if len(at) > 1 else ""
            yield f"- {words}: {_score(seen, best)}{many}"
        best_frozen = _top(seen, frozen)
        if fitted_on(best_frozen):
            yield "How much fine-tuning brings cannot be told from a head that has seen so few."
        else:
            what = "The best fine-tuned one against the frozen one"
            yield _difference(seen, best_frozen, _top(seen, tuned), what)
    if not told:
        yield (
            "Nothing can be said: no network has finished both frozen and fine-tuned."
            if seen.finished
            else "Nothing can be said: no trial has finished."
        )


def _sizes(seen: RunSeen) -> Iterator[str]:
    """Of each backbone, frozen, at its sizes."""
    by_backbone: dict[tuple[str, int | None], list[Trial]] = defaultdict(list)
    for trial in seen.finished:
        if trial.n_unfrozen == 0:
            by_backbone[trial.backbone, trial.n_blocks_kept].append(trial)
    several = [sorted(of, key=_area) for of in by_backbone.values() if len({one.image_size for one in of}) > 1]
    if not several:
        yield "Nothing can be said: no network has finished frozen at two sizes."
        return
    for of in several[:_N_BODIES]:
        yield f"{of[0].backbone}{of[0].body.cut}, frozen:"
        for trial in of:
            yield f"- {_sized(trial.image_size)} px: {_score(seen, trial)}, {trial.latency_ms:.1f} ms"
        yield _difference(seen, of[0], of[-1], "The largest against the smallest")
    if len(several) > _N_BODIES:
        yield "… and others, which the report shows."


def _rates(seen: RunSeen) -> Iterator[str]:
    tuned = sorted((one for one in seen.finished if one.lr is not None), key=lambda one: one.lr or 0.0)
    if not tuned:
        yield "Nothing can be said: no network has finished that was trained by gradient."
        return
    if len(tuned) < _FEWEST_RATES:
        are = "is" if len(tuned) == 1 else "are"
        yield f"To compare rates it takes {_FEWEST_RATES} fine-tuned trials. There {are} {len(tuned)}:"
        for trial in tuned:
            yield f"- {trial.lr:.1e}: {_score(seen, trial)} ({name_of(trial)})"
        return
    yield f"Of {len(tuned)} fine-tuned trials, by thirds of their rates; they differ in network and depth, too:"
    cuts = [0, len(tuned) // 3, 2 * len(tuned) // 3, len(tuned)]
    for low, high in pairwise(cuts):
        third = tuned[low:high]
        middle = statistics.median(one.score or 0.0 for one in third)
        yield (
            f"- {third[0].lr:.1e} to {third[-1].lr:.1e}: best {shown(seen.metric, _top(seen, third).score or 0.0)}, "
            f"median {shown(seen.metric, middle)}, of {len(third)}"
        )


def _chosen(seen: RunSeen) -> Iterator[str]:
    if seen.choice is None:
        yield f"Nothing: {seen.unchosen}"
        return
    are = "is" if len(seen.front) == 1 else "are"
    yield (
        f"Of {counted(len(seen.finished), 'finished trial')} {len(seen.front)} {are} "
        "on the front: no other is as good and faster, or as fast and better. "
        + (
            "The best one within the limit of latency was chosen:"
            if seen.facts["limits"].get("latency_ms")
            else "The fastest one was chosen that the pictures cannot tell from the best:"
        )
    )
    yield seen.choice.reason
    confirmed = unconfirmed(seen.choice.trial, seen.metric) if seen.optimism is None else str(seen.optimism)
    yield confirmed


def _further(seen: RunSeen) -> Iterator[str]:
    """What lies at an edge of what was tried, and what was not; no promise that it is better there."""
    told = [*seen.advice, *_edges(seen), *_undone(seen)]
    if not told:
        yield "Nothing stands out. More time tries further combinations, and scores the best ones more surely."
    yield from (f"- {line}" for line in told)
    yield f"To go on: {going_on(seen.reader.run.path, seen.facts, seen.metric)}"


def _edges(seen: RunSeen) -> Iterator[str]:
    best = seen.chosen
    if best is None:
        return
    sizes = seen.image_sizes.get(best.backbone, ())
    if sizes and best.image_size == max(sizes, key=lambda size: size[0] * size[1]):
        yield f"The chosen trial has the largest image size offered for {best.backbone}: larger ones were not tried."
    rates = sorted({one.lr for one in seen.finished if one.lr is not None})
    if best.lr is not None and len(rates) > 1 and best.lr in (rates[0], rates[-1]):
        end = "lowest" if best.lr == rates[0] else "highest"
        yield f"Its learning rate is the {end} of {len(rates)} that were tried to the end: beyond it nothing is known."
    deepest = max((one.n_unfrozen for one in seen.finished if one.body == best.body), default=0)
    if deepest < best.n_blocks and best.n_unfrozen == deepest:
        most = f"at most {deepest} were" if deepest else "none was"
        yield f"Of its {best.n_blocks} blocks {most} trained to the end: more were not tried."


def _undone(seen: RunSeen) -> Iterator[str]:
    tried = {(trial.backbone, trial.image_size) for trial in seen.trials}
    left = [(name, size) for name, of in seen.image_sizes.items() for size in of if (name, size) not in tried]
    if left:
        name, size = left[0]
        pairs = f"{counted(len(left), 'pair')} of network and image size"
        yield f"{pairs} not tried yet, such as {name} at {_sized(size)} px."
    n_paused = sum(trial.is_paused for trial in seen.trials)
    if n_paused:
        yield f"{counted(n_paused, 'training')} paused, which would go on."
    if seen.finished and not any(trial.n_unfrozen for trial in seen.finished):
        yield "fine-tuning: nothing was trained beyond heads on frozen networks."
    if seen.chosen is not None and seen.chosen.test_score is None:
        yield "the test part: the chosen trial has not been scored on it."


def _difference(seen: RunSeen, first: Trial, second: Trial, what: str) -> str:
    """By how much the second is better, paired over the same pictures, as far as both have said something of them."""
    has_folds = first.fold_score is not None and second.fold_score is not None
    part = "folds" if has_folds else "validation"
    one, other = (_said(seen, trial, part) for trial in (first, second))
    if one is None or other is None:
        return f"{what}: what they predicted is not in the run folder."
    is_both = np.isin(one.names, other.names), np.isin(other.names, one.names)
    one, other = one.only(is_both[0]), other.only(is_both[1])
    if not len(one.names) or not np.array_equal(one.names, other.names):
        return f"{what}: they were not scored on the same pictures, so that the difference is not told."
    try:
        low, high = paired_interval(seen.metric, one.predictions, other.predictions, one.labels)
        gain = to_maximised(seen.metric, _of(seen, other) - _of(seen, one))
    except MetricError as error:  # a file from elsewhere may hold anything
        return f"{what}: what they predicted cannot be scored: {error}"
    scale, unit = scale_of(seen.metric)
    ends = [-scale * high, -scale * low]  # of a loss
    verdict = "which may be chance"
    if ends[0] > 0 or ends[1] < 0:
        verdict = "more than chance, had it been the only one looked at"
    if not all(map(math.isfinite, (gain, *ends))):
        return f"{what}: so few pictures do not tell by how much it is better, or how sure that is."
    where = "by folds" if part == "folds" else f"on {len(one.names):,} validation pictures"
    return f"{what}: {scale * gain:+.2g}{unit} (95 %: {ends[0]:+.2g} to {ends[1]:+.2g}) {where}, {verdict}."


def _said(seen: RunSeen, trial: Trial, part: str) -> Said | None:
    try:
        return said_part(seen, trial, part)
    except RunError:
        return None


def _of(seen: RunSeen, said: Said) -> float:
    return score(seen.metric, said.predictions, said.labels)


def _by_body(seen: RunSeen) -> list[tuple[str, list[Trial]]]:
    """Finished trials of each network and size, the best first."""
    found: dict[str, list[Trial]] = defaultdict(list)
    for trial in seen.finished:
        found[str(trial.body)].append(trial)
    return sorted(found.items(), key=lambda item: -to_maximised(seen.metric, _top(seen, item[1]).score or 0.0))


def _top(seen: RunSeen, trials: Sequence[Trial]) -> Trial:
    return max(trials, key=lambda one: (to_maximised(seen.metric, one.score or 0.0), -one.number))


def _range(seen: RunSeen, trials: Sequence[Trial]) -> str:
    told = [
        f"{shown(seen.metric, trial.score or 0.0)}{scored_on(trial)}"
        for trial in sorted(trials, key=lambda one: one.score or 0.0)
    ]
    return f"It scored {told[0]}." if len(told) == 1 else f"They scored {told[0]} to {told[-1]}."


def _score(seen: RunSeen, trial: Trial) -> str:
    """In validation, and by folds where it has them."""
    told = f"{_with_error(seen, trial.score, trial.score_se)}{scored_on(trial)}"
    by_folds = (
        f", by folds {_with_error(seen, trial.fold_score, trial.fold_se)}" if trial.fold_score is not None else ""
    )
    return f"{told}{by_folds}{fitted_on(trial)}"


def _with_error(seen: RunSeen, value: float | None, error: float | None) -> str:
    assert value is not None
    if error is None or not math.isfinite(error):
        return shown(seen.metric, value)
    scale, unit = scale_of(seen.metric)
    return f"{shown(seen.metric, value)} ± {scale * error:.2g}{unit}"


def _sized(size: tuple[int, int]) -> str:
    return str(size[0]) if size[0] == size[1] else f"{size[0]}x{size[1]}"


def _area(trial: Trial) -> int:
    return trial.image_size[0] * trial.image_size[1]
