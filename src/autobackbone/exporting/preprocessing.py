"""Resizing and normalising as an ONNX graph: what `Transform` does with Pillow, for pictures of any size.

Pillow's resizing is two matrix products, one for each side, each rounded to whole numbers. So it is written here; the
matrices are made from the sides of the pictures that come. That holds for each way to fit a picture into the network's
size, and asks no more of a runtime than products and sums: ONNX's own `Resize` has an order of its two passes, which
rounding makes one that counts, and few runtimes have its `antialias`.

Pillow counts in whole numbers, the shares of pixels in units of 2**-22. So does the graph: in float64, which has room
for each sum of them, so that nothing depends on the order in which a runtime adds, and pixels are Pillow's to the bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image

from autobackbone.data import BORDER, Preparation
from autobackbone.errors import ArgumentError
from autobackbone.records import ImageSize, Normalisation, Resize

if TYPE_CHECKING:
    from onnx import ModelProto

# The first that torch's exporter writes here; `Resize` apart, nothing of it matters.
OPSET: Final = 20
IR_VERSION: Final = 10

# Which part of each side of a picture goes where: vectors of (height, width) in pixels. `start` and `length` are of the
# part in the picture, `first` and `n` of what the network takes. As in Pillow, what is cut is in float32 at the end
# (`ImageOps.fit`, and `box` in Resample.c).
_PLACES: Final[Mapping[Resize, str]] = {
    "squash": """
        start = Sub (sides, sides)
        length = Identity (sides)
        first = Sub (sides, sides)
        n = Identity (size)
    """,
    "crop": """
        half = Constant <value = double {0.5}> ()
        only_row = Constant <value = int64[1] {0}> ()
        only_column = Constant <value = int64[1] {1}> ()
        high = Gather (sides, only_row)
        wide = Gather (sides, only_column)
        wanted_high = Gather (size, only_row)
        wanted_wide = Gather (size, only_column)
        ratio = Div (wide, high)
        wanted_ratio = Div (wanted_wide, wanted_high)
        is_too_wide = Greater (ratio, wanted_ratio)
        is_too_high = Less (ratio, wanted_ratio)
        wide_enough = Mul (wanted_ratio, high)
        high_enough = Div (wide, wanted_ratio)
        part_high = Where (is_too_high, high_enough, high)
        part_wide = Where (is_too_wide, wide_enough, wide)
        part = Concat <axis = 0> (part_high, part_wide)
        cut = Sub (sides, part)
        begin = Mul (cut, half)
        end = Add (begin, part)
        begin_float = Cast <to = 1> (begin)
        end_float = Cast <to = 1> (end)
        length_float = Sub (end_float, begin_float)
        start = Cast <to = 11> (begin_float)
        length = Cast <to = 11> (length_float)
        first = Sub (sides, sides)
        n = Identity (size)
    """,
    "pad": """
        half = Constant <value = double {0.5}> ()
        one = Constant <value = double {1.0}> ()
        start = Sub (sides, sides)
        length = Identity (sides)
        scales = Div (size, sides)
        scale = ReduceMin <keepdims = 0> (scales)
        scaled = Mul (sides, scale)
        whole_pixels = Round (scaled)
        at_most = Min (whole_pixels, size)
        n = Max (at_most, one)
        left_over = Sub (size, n)
        before = Mul (left_over, half)
        first = Floor (before)
    """,
}

# From the distance `x` of a pixel to the centre, float64, to how much it counts, `raw`.
_FILTERS: Final[Mapping[str, str]] = {
    "bilinear": """
        none = Constant <value = double {0.0}> ()
        unit = Constant <value = double {1.0}> ()
        far = Abs (x)
        near = Sub (unit, far)
        raw = Max (near, none)
    """,
    # a = -0.5: (1.5 x - 2.5) x² + 1 up to 1, ((-0.5 x + 2.5) x - 4) x + 2 up to 2.
    "bicubic": """
        none = Constant <value = double {0.0}> ()
        unit = Constant <value = double {1.0}> ()
        c0 = Constant <value = double {1.5}> ()
        c1 = Constant <value = double {2.5}> ()
        c2 = Constant <value = double {-0.5}> ()
        c3 = Constant <value = double {4.0}> ()
        reach = Constant <value = double {2.0}> ()
        far = Abs (x)
        i0 = Mul (far, c0)
        i1 = Sub (i0, c1)
        i2 = Mul (i1, far)
        i3 = Mul (i2, far)
        inner = Add (i3, unit)
        o0 = Mul (far, c2)
        o1 = Add (o0, c1)
        o2 = Mul (o1, far)
        o3 = Sub (o2, c3)
        o4 = Mul (o3, far)
        outer = Add (o4, reach)
        is_inner = Less (far, unit)
        is_outer = Less (far, reach)
        outer_or_none = Where (is_outer, outer, none)
        raw = Where (is_inner, inner, outer_or_none)
    """,
}

# How much each pixel of a side counts for each of the network's: (n_out, side) float64, whole numbers of 2**-22 parts.
# Source: `precompute_coeffs` and `normalize_coeffs_8bpc` in Pillow's Resample.c.
_SHARES: Final = """
<domain: "autobackbone", opset_import: ["" : OPSET]>
shares_of (side, start, length, first, n, n_out) => (shares)
{
    zero = Constant <value = double {0.0}> ()
    half = Constant <value = double {0.5}> ()
    one = Constant <value = double {1.0}> ()
    rows = Constant <value = int64[1] {1}> ()
    columns = Constant <value = int64[1] {0}> ()
    scale = Div (length, n)
    wanted = Range (zero, n_out, one)
    own = Sub (wanted, first)
    own_centre = Add (own, half)
    own_scaled = Mul (own_centre, scale)
    centre = Add (own_scaled, start)
    pixel = Range (zero, side, one)
    pixel_centre = Add (pixel, half)
    across = Unsqueeze (pixel_centre, columns)
    down = Unsqueeze (centre, rows)
    offset = Sub (across, down)
    width = Max (scale, one)
    x = Div (offset, width)
    FILTER
    total = ReduceSum <keepdims = 1> (raw, rows)
    is_empty = Equal (total, none)
    divisor = Where (is_empty, unit, total)
    share = Div (raw, divisor)
    parts = Constant <value = double {4194304.0}> ()
    in_parts = Mul (share, parts)
    sign = Sign (in_parts)
    size_of = Abs (in_parts)
    raised = Add (size_of, half)
    floored = Floor (raised)
    shares = Mul (floored, sign)
}
"""
_ROUNDED: Final = """
<domain: "autobackbone", opset_import: ["" : OPSET]>
rounded (numbers) => (whole)
{
    half = Constant <value = double {0.5}> ()
    parts = Constant <value = double {4194304.0}> ()
    black = Constant <value = double {0.0}> ()
    white = Constant <value = double {255.0}> ()
    levels = Div (numbers, parts)
    raised = Add (levels, half)
    floored = Floor (raised)
    whole = Clip (floored, black, white)
}
"""
# One where a row or a column of the network's is of the picture, not of the border.
_INSIDE: Final = """
<domain: "autobackbone", opset_import: ["" : OPSET]>
is_inside (first, n, n_out) => (inside)
{
    zero = Constant <value = double {0.0}> ()
    one = Constant <value = double {1.0}> ()
    wanted = Range (zero, n_out, one)
    end = Add (first, n)
    is_after = GreaterOrEqual (wanted, first)
    is_before = Less (wanted, end)
    inside = And (is_after, is_before)
}
"""
_COLUMNS_FIRST: Final = """
    c0 = MatMul (whole, from_left)
    c1 = autobackbone.rounded (c0)
    c2 = MatMul (from_top, c1)
    c3 = autobackbone.rounded (c2)
"""
_ROWS_FIRST: Final = """
    r0 = MatMul (from_top, whole)
    r1 = autobackbone.rounded (r0)
    r2 = MatMul (r1, from_left)
    r3 = autobackbone.rounded (r2)
"""
_EITHER_FIRST: Final = f"""
    nothing = Constant <value = double {{0.0}}> ()
    shrinks = Sub (sides, n)
    shrinks_down = Gather (shrinks, row)
    shrinks_across = Gather (shrinks, column)
    across_twice = Add (shrinks_across, shrinks_across)
    is_lower = Greater (shrinks_down, nothing)
    is_clearly_lower = Greater (shrinks_down, across_twice)
    is_tall = And (is_lower, is_clearly_lower)
    small = If (is_tall) <
        then_branch = rows_first () => (double[batch, 3, HEIGHT, WIDTH] r3) {{ {_ROWS_FIRST} }},
        else_branch = columns_first () => (double[batch, 3, HEIGHT, WIDTH] c3) {{ {_COLUMNS_FIRST} }}
    >
"""
_ON_BORDER: Final = f"""
    border = Constant <value = double[3,1,1] {{{", ".join(f"{one:.1f}" for one in BORDER)}}}> ()
    rows_inside = autobackbone.is_inside (first_row, n_rows, size_row)
    columns_inside = autobackbone.is_inside (first_column, n_columns, size_column)
    axis_after = Constant <value = int64[1] {{1}}> ()
    down_inside = Unsqueeze (rows_inside, axis_after)
    inside = And (down_inside, columns_inside)
    pixels = Where (inside, small, border)
"""


def preprocessing(image_size: ImageSize, preparation: Preparation, normalisation: Normalisation) -> ModelProto:
    """A graph from pictures to inputs of a network.

    Args:
        image_size: height and width in pixels that the network takes.
        preparation: how a picture becomes pixels. Its range of values and channels are for whoever decodes: what comes
            here is 8-bit RGB, upright.
        normalisation: how pixels enter the backbone.

    Returns:
        `pictures` (batch, height, width, 3) uint8, all three free → `prepared` (batch, 3, *image_size) float32.

    Raises:
        ArgumentError: the interpolation jumps from pixel to pixel, so that rounding would pick others.
    """
    import onnx.parser
    from onnx.inliner import inline_local_functions

    if preparation.interpolation not in _FILTERS:
        raise ArgumentError(
            f"a graph resizes by {' or '.join(_FILTERS)}; this run did by {preparation.interpolation!r}. Give "
            "with_preprocessing=False, and resize pictures by model(…).transform."
        )
    model = onnx.parser.parse_model(_text(image_size, preparation, normalisation))
    onnx.checker.check_model(model)
    return inline_local_functions(model)


@cache
def pillow_may_go_down_first() -> bool:
    """Whether the Pillow that is here, such as 13.0, resizes downwards first where a picture shrinks most in height.

    Rounding between the two passes makes the pixels others, and networks here were trained on Pillow's.
    """
    noise = np.random.default_rng(0).integers(0, 256, (60, 9), dtype=np.uint8)
    picture, by = Image.fromarray(noise), Image.Resampling.BICUBIC
    at_once, rows_first = picture.resize((8, 8), by), picture.resize((9, 8), by).resize((8, 8), by)
    return at_once.tobytes() == rows_first.tobytes()


def _text(image_size: ImageSize, preparation: Preparation, normalisation: Normalisation) -> str:
    height, width = image_size
    pixels = _ON_BORDER if preparation.resize == "pad" else "pixels = Identity (small)"
    small = _EITHER_FIRST if pillow_may_go_down_first() else f"{_COLUMNS_FIRST} small = Identity (c3)"
    small = small.replace("HEIGHT", str(height)).replace("WIDTH", str(width))
    shares = _SHARES.replace("FILTER", _FILTERS[preparation.interpolation])
    functions = f"{shares}\n{_ROUNDED}\n{_INSIDE}".replace("OPSET", str(OPSET))
    return f"""
<ir_version: {IR_VERSION}, opset_import: ["" : {OPSET}, "autobackbone" : 1]>
preprocessing (uint8[batch, height, width, 3] pictures) => (float[batch, 3, {height}, {width}] prepared)
<double[2] size = {_numbers(image_size)},
 float[3,1,1] mean = {_numbers(_of_255(normalisation.mean))}, float[3,1,1] std = {_numbers(_of_255(normalisation.std))},
 int64 row = {{0}}, int64 column = {{1}}>
{{
    channels_first = Transpose <perm = [0, 3, 1, 2]> (pictures)
    whole = Cast <to = 11> (channels_first)
    n_pixels = Shape <start = 1, end = 3> (pictures)
    sides = Cast <to = 11> (n_pixels)
    {_PLACES[preparation.resize]}
    {_of_side("row")}
    {_of_side("column")}
    from_top = autobackbone.shares_of (side_row, start_row, length_row, first_row, n_rows, size_row)
    to_left = autobackbone.shares_of (side_column, start_column, length_column, first_column, n_columns, size_column)
    from_left = Transpose <perm = [1, 0]> (to_left)
    {small}
    {pixels}
    levels = Cast <to = 1> (pixels)
    centred = Sub (levels, mean)
    prepared = Div (centred, std)
}}
{functions}
"""


def _of_side(side: str) -> str:
    taken = {"side": "sides", "start": "start", "length": "length", "first": "first", "size": "size"}
    lines = [f"{name}_{side} = Gather ({of}, {side})" for name, of in taken.items()]
    return "\n    ".join([*lines, f"n_{side}s = Gather (n, {side})"])


def _of_255(shares: Iterable[float]) -> list[float]:
    """In float32, as `normalise` has them."""
    return [float(np.float32(share) * np.float32(255)) for share in shares]


def _numbers(values: Iterable[float]) -> str:
    return "{" + ", ".join(repr(float(value)) for value in values) + "}"
