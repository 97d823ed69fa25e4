"""What README.md shows works."""

import re
import sys
import types
from pathlib import Path

import numpy as np
from helpers import Pool

import soup_judge
from soup_judge.check.__main__ import main as check

README = Path(__file__).parent.parent / "README.md"


def test_the_judge_passes_the_checks(tmp_path, monkeypatch, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    path = tmp_path / "my_judge.py"
    path.write_text(code)
    served = []
    monkeypatch.setattr(soup_judge, "serve", served.append)
    module = types.ModuleType("my_judge")
    module.__file__ = str(path)
    monkeypatch.setitem(sys.modules, "my_judge", module)
    exec(compile(code, path, "exec"), module.__dict__)
    random = np.random.default_rng(0)
    np.savez(tmp_path / "v.npz", x=random.normal(size=(20, 784)).astype(np.float32), y=random.integers(0, 10, 20))
    arrays = {"weight": random.normal(size=(10, 784)) / 28, "bias": random.normal(size=10)}
    arrays = {name: array.astype(np.float32) for name, array in arrays.items()}
    soup = Pool(tmp_path, arrays).write("soup", arrays)
    with soup_judge.Server(served[0], tmp_path / "socket"):
        assert check([str(tmp_path / "socket"), "--weights", str(soup), "--source", str(tmp_path / "v.npz")]) == 0
    assert "18 passed" in capsys.readouterr().out
