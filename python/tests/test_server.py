"""A judge as a process: where its socket comes from, and how it ends."""

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import grpc
import pytest
from helpers import EXAMPLES, example

import soup_judge
from soup_judge.client import Client
from soup_judge.server import find_socket

Perceptron = example("mlp").Perceptron


def started(path, *arguments, script=EXAMPLES / "mlp.py", variable=True, **options):
    environment = {name: value for name, value in os.environ.items() if name != "SOUP_JUDGE_SOCKET"}
    if variable:
        environment["SOUP_JUDGE_SOCKET"] = str(path)
    process = subprocess.Popen(
        [sys.executable, str(script), *arguments],
        env=environment,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )
    deadline = time.monotonic() + 20
    while not path.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    return process


def test_a_judge_that_a_worker_starts_ends_with_its_input(tmp_path):
    path = tmp_path / "judge.sock"
    process = started(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with Client(path, timeout=10) as client:
        assert client.describe().version == "1"
    process.stdin.close()
    assert process.wait(10) == 0
    assert not path.exists()
    assert "Perceptron serves" in process.stderr.read()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it(tmp_path, number):
    path = tmp_path / "judge.sock"
    process = started(path, "--socket", str(path), variable=False)
    process.stdin.close()
    with Client(path, timeout=10) as client:
        assert client.describe().version == "1"
    time.sleep(0.2)
    assert process.poll() is None, "without a worker, the end of input means nothing"
    process.send_signal(number)
    assert process.wait(10) == 0
    assert not path.exists()


def test_it_ends_in_the_middle_of_a_computation(tmp_path, perceptron):
    script = tmp_path / "slow.py"
    script.write_text(
        "import time, soup_judge\n"
        "class Slow(soup_judge.Judge):\n"
        "    version = '1'\n"
        "    def open(self, schema, datasets):\n"
        "        self.progress('sleeping')\n"
        "        time.sleep(600)\n"
        "soup_judge.serve(Slow())\n"
    )
    path = tmp_path / "judge.sock"
    process = started(path, script=script)
    with Client(path, timeout=30) as client:

        def ask():
            with pytest.raises(grpc.RpcError):
                client.open("s", [], [perceptron.dataset])

        asking = threading.Thread(target=ask)
        asking.start()
        deadline = time.monotonic() + 10
        while not client.progress and time.monotonic() < deadline:
            time.sleep(0.02)
        begun = time.monotonic()
        process.stdin.close()
        assert process.wait(10) == 0
        assert time.monotonic() - begun < 5
        asking.join(10)
    assert not path.exists()


def test_a_stale_socket_is_replaced_and_nothing_else(tmp_path):
    path = tmp_path / "judge.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    with soup_judge.Server(Perceptron(), path):
        with pytest.raises(FileExistsError, match="served by another"):
            soup_judge.Server(Perceptron(), path).start()
        with Client(path, timeout=10) as client:
            client.describe()
    path.write_text("precious")
    with pytest.raises(FileExistsError, match="no socket"):
        soup_judge.Server(Perceptron(), path).start()
    assert path.read_text() == "precious"
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError, match="no socket"):
        soup_judge.Server(Perceptron(), path).start()


def test_a_socket_that_another_took_is_left_alone(tmp_path):
    path = tmp_path / "judge.sock"
    server = soup_judge.Server(Perceptron(), path)
    server.start()
    path.unlink()
    path.write_text("another's")
    server.stop()
    assert path.read_text() == "another's"


@pytest.mark.parametrize("name", ["with space", "50%", "a#b?c", "unix:x", "ü"])
def test_paths_mean_themselves(tmp_path, name):
    with soup_judge.Server(Perceptron(), tmp_path / name), Client(tmp_path / name, timeout=10) as client:
        assert [path.name for path in tmp_path.iterdir()] == [name]
        client.describe()


def test_paths_that_cannot_be(tmp_path):
    with pytest.raises(ValueError, match="107 bytes"):
        soup_judge.Server(Perceptron(), tmp_path / ("x" * 120))
    with pytest.raises(OSError, match="cannot create the socket"):
        soup_judge.Server(Perceptron(), tmp_path / "nowhere" / "socket").start()


def test_where_the_socket_is(monkeypatch):
    monkeypatch.delenv("SOUP_JUDGE_SOCKET", raising=False)
    with pytest.raises(SystemExit, match="where is the socket"):
        find_socket(None, ["--other", "x"])
    with pytest.raises(SystemExit, match="needs a path"):
        find_socket(None, ["--socket"])
    assert str(find_socket("p", [])) == "p"
    assert str(find_socket(None, ["x", "--socket", "a"])) == str(find_socket(None, ["--socket=a"])) == "a"
    with pytest.raises(SystemExit, match=r"the parameter \(p\) and --socket \(a\) differ"):
        find_socket("p", ["--socket=a"])
    monkeypatch.setenv("SOUP_JUDGE_SOCKET", "e")
    assert str(find_socket(None, [])) == str(find_socket("e", ["--socket=e"])) == "e"
    with pytest.raises(SystemExit, match="differ"):
        find_socket(None, ["--socket=a"])


def test_a_script_without_a_socket_says_so(tmp_path):
    process = started(tmp_path / "never", variable=False)
    assert process.wait(20) == 1
    assert "--socket PATH" in process.stderr.read()


def digest_of(script):
    code = (
        "import sys, importlib.util as u\n"
        "s = u.spec_from_file_location('judge', sys.argv[1]); m = u.module_from_spec(s); sys.modules['judge'] = m\n"
        "s.loader.exec_module(m)\n"
        "import soup_judge.judge as j\n"
        "judge = m.Perceptron(); print(j.default_digest(judge))\n"
        "judge.configuration = {'b': 1, 'a': [2]}; print(j.default_digest(judge))\n"
    )
    answer = subprocess.run([sys.executable, "-c", code, script], capture_output=True, text=True, check=True)
    return answer.stdout.split()


def test_the_digest_is_that_of_code_and_configuration(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    copy = shutil.copy(EXAMPLES / "mlp.py", tmp_path / "elsewhere" / "mlp.py")
    plain, configured = digest_of(EXAMPLES / "mlp.py")
    assert plain != configured
    assert digest_of(copy) == [plain, configured]
    with Path(copy).open("a") as file:
        file.write("# another\n")
    assert digest_of(copy)[0] != plain
