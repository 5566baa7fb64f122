"""The audit of dependencies, by pip-audit and a service on this machine: it never says "none" where nobody knows."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version

import pytest
from scripts import audit

pytest.importorskip("pip_audit", reason="pip-audit is not installed")
HOLE = {"id": "PYSEC-2026-1", "aliases": ["CVE-2026-1"], "summary": "a hole", "details": "a hole"}


@pytest.fixture
def two_packages(monkeypatch):
    # Nothing outside of this machine is asked: its first service is closed, the second one is ours.
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setattr(audit, "needed", lambda whole: {"pillow": "12.0.0", "torch": "2.9.0"})


@pytest.fixture
def service(two_packages):
    """The address of one that tells what `holes` says of each package."""

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self):
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            body = json.dumps({"vulns": holes.get(asked["package"]["name"], [])}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    holes = {}
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v1/query", holes
        server.shutdown()
        thread.join()


def hole(package, *events):
    return HOLE | {
        "affected": [
            {
                "package": {"name": package, "ecosystem": "PyPI"},
                "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, *events]}],
                "versions": [],
            }
        ]
    }


@pytest.mark.slow
def test_what_has_no_hole_passes(service, capsys):
    assert audit.main(["--osv-url", service[0]]) == 0
    assert capsys.readouterr().out == "2 packages audited by osv, 0 known vulnerabilities\n"


def test_a_hole_that_a_later_version_mends_fails_and_is_named(service, capsys):
    service[1]["pillow"] = [hole("pillow", {"fixed": "12.0.1"})]
    service[1]["torch"] = [hole("torch") | {"id": "PYSEC-2026-2", "aliases": []}]
    assert audit.main(["--osv-url", service[0]]) == 1
    out = capsys.readouterr().out
    assert "2 packages audited by osv, 2 known vulnerabilities" in out
    assert "pillow 12.0.0: PYSEC-2026-1, CVE-2026-1, mended in 12.0.1" in out
    assert "torch 2.9.0: PYSEC-2026-2, not mended yet" in out


@pytest.mark.slow
def test_a_hole_that_nothing_mends_is_named_and_fails_nobody(service, capsys):
    service[1]["pillow"] = [hole("pillow")]
    assert audit.main(["--osv-url", service[0]]) == 0
    assert "pillow 12.0.0: PYSEC-2026-1, CVE-2026-1, not mended yet" in capsys.readouterr().out


def test_where_nobody_can_be_asked_that_is_said(two_packages, capsys):
    assert audit.main(["--osv-url", "http://127.0.0.1:1/v1/query"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("NOT audited: whether a dependency has a known vulnerability could not be asked (pypi: ")
    assert "0 known" not in out


def test_packages_that_a_service_does_not_know_are_none_without_holes():
    found = audit._read([{"name": "a", "version": "1", "vulns": []}, {"name": "b", "skip_reason": "not found"}])
    assert (found.n_known, found.unknown) == (1, ("b",))


def test_all_that_is_needed_is_listed_as_an_index_has_it():
    found = audit.needed("autobackbone[dev]")
    assert {"torch", "pillow", "sqlalchemy", "pytest", "hypothesis"} <= found.keys()
    assert "autobackbone" not in found
    assert found["torch"] == version("torch").partition("+")[0]
    assert "pip" not in audit.needed("autobackbone")
