"""Ask whether anything that autobackbone needs has a known vulnerability, by pip-audit.

    python scripts/audit.py [--osv-url URL]

The exit code is 1 where a dependency has one that a later version mends, and else 0. With an index that knows of no
vulnerabilities, as a mirror, pip-audit itself ends well and says there are none: here it is said that nobody knows.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

_WHOLE = "autobackbone[dev]"
# Seconds: of one answer, and of all of them.
_ANSWER_S, _ALL_S = 15, 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a service answered.

    Args:
        n_known: packages that it could tell of.
        unknown: names of those that it could not.
        mended: a line for each vulnerability that a later version mends.
        open: a line for each that none mends yet.
        problem: why there was no answer; empty where there was one.
    """

    n_known: int = 0
    unknown: tuple[str, ...] = ()
    mended: tuple[str, ...] = ()
    open: tuple[str, ...] = ()
    problem: str = ""


def main(arguments: Sequence[str]) -> int:
    """Audit what is installed, and say what came out."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--osv-url", default="https://api.osv.dev/v1/query", help="of the second service that is asked")
    osv_url = parser.parse_args(arguments).osv_url
    pins = [f"{name}=={version}" for name, version in sorted(needed(_WHOLE).items())]
    problems = []
    for service in (["pypi"], ["osv", "--osv-url", osv_url]):
        # One first: whoever cannot tell of that can tell of none.
        found = audited(pins[:1], service)
        if found.n_known:
            found = audited(pins, service)
        if found.n_known:
            return told(found, service[0])
        problems.append(f"{service[0]}: {found.problem or f'it knows nothing of {pins[0]}'}")
    print(f"NOT audited: whether a dependency has a known vulnerability could not be asked ({'; '.join(problems)})")
    return 0


def told(found: Report, service: str) -> int:
    """Print what was found; the exit code."""
    print(f"{found.n_known} packages audited by {service}, {len(found.mended) + len(found.open)} known vulnerabilities")
    if found.unknown:
        print(f"NOT audited, since {service} does not know them: {', '.join(found.unknown)}")
    for line in (*found.mended, *found.open):
        print(line)
    return 1 if found.mended else 0


def needed(whole: str) -> dict[str, str]:
    """Each package that is installed for a requirement, itself left out, and its version as an index has it."""
    found: dict[str, str] = {}
    waiting, seen = [Requirement(whole)], set[tuple[str, str]]()
    while waiting:
        wanted = waiting.pop()
        for extra in ("", *sorted(wanted.extras)):
            key = canonicalize_name(wanted.name), extra
            if key in seen:
                continue
            seen.add(key)
            try:
                installed = distribution(wanted.name)
            except PackageNotFoundError:  # of another platform
                continue
            found[key[0]] = Version(installed.version).public  # an index knows no 2.9.0+cpu
            parts = map(Requirement, installed.requires or ())
            waiting += [one for one in parts if one.marker is None or one.marker.evaluate({"extra": extra})]
    found.pop(canonicalize_name(Requirement(whole).name), None)
    return found


def audited(pins: Iterable[str], service: Sequence[str]) -> Report:
    """What a service knows of some packages."""
    with tempfile.TemporaryDirectory() as folder:
        listed, answer = Path(folder) / "requirements.txt", Path(folder) / "answer.json"
        listed.write_text("\n".join(pins), encoding="utf-8")
        command = [sys.executable, "-m", "pip_audit", "--requirement", listed, "--no-deps", "--disable-pip"]
        command += ["--format", "json", "--output", answer, "--progress-spinner", "off", "--timeout", str(_ANSWER_S)]
        said = ""
        try:
            asked = subprocess.run(  # noqa: S603  this very Python
                [*map(str, command), "--vulnerability-service", *service],
                capture_output=True,
                text=True,
                timeout=_ALL_S,
                check=False,
            )
            said = asked.stderr
            return _read(json.loads(answer.read_text(encoding="utf-8"))["dependencies"])
        except subprocess.TimeoutExpired:
            return Report(problem=f"no answer within {_ALL_S} s")
        except (OSError, ValueError, KeyError):
            return Report(problem=next(iter(reversed(said.strip().splitlines())), "no answer"))


def _read(dependencies: Iterable[dict[str, Any]]) -> Report:
    known = [one for one in dependencies if "skip_reason" not in one]
    unknown = tuple(one["name"] for one in dependencies if "skip_reason" in one)
    mended, unmended = [], []
    for one in known:
        for hole in one["vulns"]:
            what = f"{one['name']} {one['version']}: {', '.join([hole['id'], *hole.get('aliases', ())])}"
            if hole["fix_versions"]:
                mended.append(f"{what}, mended in {', '.join(hole['fix_versions'])}")
            else:
                unmended.append(f"{what}, not mended yet")
    return Report(n_known=len(known), unknown=unknown, mended=tuple(mended), open=tuple(unmended))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
