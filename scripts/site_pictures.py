"""Draw the pictures of the site that show published facts; those of measurements are drawn by `benchmarks/`.

    python scripts/site_pictures.py

The facts are those that the package brings (`src/autobackbone/backbones/tables/FACTS.md` says whose they are).
"""

from __future__ import annotations

from pathlib import Path

from autobackbone import plot_catalogue

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
NAMED = (
    "inception_v3.tv_in1k",
    "resnet50.tv_in1k",
    "resnet50.a1_in1k",
    "efficientnet_b0.ra_in1k",
    "convnext_atto.d2_in1k",
    "convnext_tiny.in12k_ft_in1k",
)


def draw() -> None:
    """Accuracy against size, and against speed on a processor."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    plot_catalogue("n_params", highlight=NAMED).savefig(PICTURES / "catalogue_size.png", dpi=110)
    figure = plot_catalogue("cpu_images_per_s", highlight=NAMED)
    # Fast is to the right here: the corner that is free is the lower left one.
    figure.axes[0].legend(loc="lower left")
    figure.savefig(PICTURES / "catalogue_speed.png", dpi=110)


if __name__ == "__main__":
    draw()
