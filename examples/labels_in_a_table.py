"""Numbers or several labels a picture, from a CSV file; then another choice, and a last training on all that is there.

python examples/labels_in_a_table.py cells/labels.csv 10min area
python examples/labels_in_a_table.py cards/labels.csv 10min nine ten jack

With nothing said it learns how much ink handwritten digits have: twenty seconds of search, and as much for the last
training.
"""

import sys

from small_data import digits_table

from autobackbone import open_run, select_backbone


def main(table: str = "", budget: str = "20s", *columns: str) -> None:
    if not table:
        table, columns = digits_table(), ("ink",)
    result = select_backbone(table, budget, label=columns[0] if len(columns) == 1 else list(columns))
    for trial in result.front:
        between = f"{trial.test_score_low:.3f} to {trial.test_score_high:.3f}" if trial.test_score is not None else "?"
        print(f"trial {trial.number}: {trial.latency_ms:.1f} ms, {trial.score:.3f}, on the test part {between}")

    # A run is a folder: it opens again in another process, on another machine.
    run = open_run(result.path)
    print("chosen:", run.best.number, run.choice.reason)
    print("the fastest:", run.select("speed").number, "the knee:", run.knee().number)

    # Trained once more with the validation pictures; which of both to use, the gain and its interval help to decide.
    print(run.refit(on="train+val", budget=budget))


if __name__ == "__main__":
    main(*sys.argv[1:])
