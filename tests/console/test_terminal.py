"""The terminal of a command: any locale, other libraries' warnings, progress bars."""

import io
import logging
import os
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest
from absl import logging as absl_logging
from tqdm import tqdm

from vclip_jax.console import terminal

PROGRAM = """
import sys
from vclip_jax.console import terminal
terminal.prepare()
print(sys.argv[1], sys.flags.utf8_mode)
print("\u9752", file=sys.stderr)
import os; print(os.path.exists(sys.argv[1]))
"""


def run(tmp_path, name, **environment):
    (tmp_path / name).touch()
    (tmp_path / "program.py").write_text(PROGRAM)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("LC_", "LANG", "PYTHON"))}
    done = subprocess.run(
        [sys.executable, "program.py", name],
        cwd=tmp_path, env=kept | {"PYTHONPATH": os.getcwd()} | environment, capture_output=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.decode(), done.stderr.decode()


def test_without_utf8_a_command_starts_again_with_it_and_says_so(tmp_path):
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    out, err = run(tmp_path, "青光眼.jpg", **plain)
    assert out == "青光眼.jpg 1\nTrue\n"
    assert "text is read and written as UTF-8 (LC_ALL=C.UTF-8" in err
    assert err.endswith("青\n")


def test_with_utf8_nothing_is_said(tmp_path):
    assert run(tmp_path, "青.jpg", LC_ALL="C.UTF-8") == ("青.jpg 0\nTrue\n", "青\n")


def test_what_the_output_cannot_hold_is_written_out(tmp_path):
    out, err = run(tmp_path, "青é.jpg", LC_ALL="C.UTF-8", PYTHONIOENCODING="ascii")
    assert out == "\\u9752\\xe9.jpg 0\nTrue\n"
    assert err == "\\u9752\n"


def test_a_name_that_is_no_unicode_does_not_stop_a_command(tmp_path):
    name = os.fsdecode(b"\xff.jpg")
    out, _ = run(tmp_path, name, LC_ALL="C.UTF-8")
    assert out == "\\udcff.jpg 0\nTrue\n"


def test_a_line_of_the_log_has_no_progress_bar_in_it(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with tqdm(total=3, file=stream, mininterval=0) as bar:
        for number in range(3):
            record = logging.LogRecord("x", 30, "", 0, "word %d", (number,), None)
            terminal.Handler().emit(record)
            bar.update()
    lines = [part for line in stream.getvalue().split("\n") for part in line.split("\r")]
    assert [line for line in lines if "word" in line] == ["word 0", "word 1", "word 2"]


def test_other_libraries_warnings_are_left_out_and_come_back():
    before = absl_logging.get_verbosity()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with terminal.without_others_warnings():
            warnings.warn("of another library", stacklevel=1)
            assert absl_logging.get_verbosity() == absl_logging.FATAL
        assert not seen
        warnings.warn("of one's own", stacklevel=1)
        assert len(seen) == 1
    assert absl_logging.get_verbosity() == before


@pytest.mark.parametrize("data", [b"a.jpg\n\xff.jpg\n"])
def test_any_bytes_on_standard_input_are_names(monkeypatch, data):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert [os.fsencode(line) for line in terminal.lines_of_stdin()] == [b"a.jpg\n", b"\xff.jpg\n"]


def test_every_command_is_prepared():
    package = Path(terminal.__file__).parents[1]
    commands = [
        path
        for path in package.rglob("*.py")
        if 'if __name__ == "__main__":' in path.read_text() and path.name != "excel_reader.py"
    ]  # the reader speaks to this package alone
    assert {path.name for path in commands} >= {"main.py", "__main__.py"}
    for path in commands:
        start = path.read_text().partition('if __name__ == "__main__":')[2]
        assert "terminal.prepare()" in start.partition("\n\n\n")[0], path


def test_a_bar_lasts_when_its_reader_is_gone(monkeypatch):
    reading, writing = os.pipe()
    os.close(reading)
    gone = os.fdopen(writing, "w", 1)
    monkeypatch.setattr(sys, "stderr", gone)
    bar = terminal.bar(total=3, mininterval=0)
    others = [threading.Thread(target=bar.update, daemon=True) for _ in range(3)]
    for other in others:
        other.start()
    for other in others:
        other.join(10)
        assert not other.is_alive()
    bar.close()
    with pytest.raises(BrokenPipeError):
        gone.close()
