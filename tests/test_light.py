import subprocess
import sys

import autobackbone


def test_importing_the_package_imports_nothing_heavy():
    code = "import autobackbone, sys; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"torch", "optuna", "timm", "sklearn", "pandas", "numpy", "matplotlib", "PIL", "pytorch_lightning", "rich"}
    assert not heavy & set(done.stdout.split())


def test_all_that_is_public_is_there():
    for name in autobackbone.__all__:
        assert getattr(autobackbone, name) is not None
    assert set(autobackbone.__all__) <= set(dir(autobackbone))
