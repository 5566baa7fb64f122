from autobackbone.doctor import Check, examine


def test_a_machine_that_passes_these_tests_is_healthy(monkeypatch, tmp_path):
    monkeypatch.setenv("AUTOBACKBONE_CACHE", str(tmp_path))
    checks = list(examine())
    names = [check.name for check in checks]
    assert names[0] == "versions"
    assert {"device", "precision float32", "precision bfloat16", "disk", "weights", "search"} <= set(names)
    assert [check for check in checks if check.state == "problem"] == []
    assert "trials" in checks[-1].detail


def test_a_cache_that_cannot_be_written_is_a_problem_with_a_remedy(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("AUTOBACKBONE_CACHE", str(tmp_path / "file" / "cache"))
    from autobackbone.doctor import _disk

    found = _disk()
    assert isinstance(found, Check)
    assert found.state == "problem"
    assert "AUTOBACKBONE_CACHE" in found.remedy
