"""The terminal of a command: any locale, other libraries' warnings, progress bars."""

import io
import logging
import os
import re
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest
from absl import logging as absl_logging

from vclip_jax.console import commands, terminal

PROGRAM = """
import sys
from vclip_jax.console import commands
commands.prepare()
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
        cwd=tmp_path,
        env=kept | {"PYTHONPATH": os.getcwd()} | environment,
        capture_output=True,
    )
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


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_line_of_the_log_has_no_progress_bar_in_it(monkeypatch):
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    with terminal.bar(total=3, unit=" x", mininterval=0) as bar:
        for number in range(3):
            record = logging.LogRecord("x", 30, "", 0, "word %d", (number,), None)
            commands.Handler().emit(record)
            bar.update()
    lines = [part for line in stream.getvalue().split("\n") for part in line.split("\r")]
    assert [line for line in lines if "word" in line] == ["word 0", "word 1", "word 2"]


def test_off_a_terminal_progress_is_a_line_now_and_then_and_one_at_the_end(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    now = 0.0
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now)
    with terminal.bar(total=30, initial=10, unit=" images", desc="mine", mininterval=0) as bar:
        for _ in range(20):
            now += terminal.LINE_SECONDS / 8
            bar.update()
        bar.set_description("done")
        bar.set_postfix(rejects=2, refresh=False)
    assert stream.getvalue().splitlines() == [
        "mine: 18/30 [01:00<01:30,  7.50s/ images]",
        "mine: 26/30 [02:00<00:30,  7.50s/ images]",
        "done: 30/30 [02:30<00:00,  7.50s/ images], rejects 2",
    ]
    with terminal.bar(total=3, unit=" images", disable=True) as bar:
        bar.update()
    assert stream.getvalue().count("\n") == 3


def test_nobody_draws_bars_but_the_console():
    package = Path(terminal.__file__).parents[1]
    drawn = [path for path in package.rglob("*.py") if re.search(r"\btqdm\(", path.read_text())]
    assert drawn == [package / "console/terminal.py"]


def test_the_hubs_client_is_imported_later_and_warns_of_nothing_either():
    program = (
        "import logging\nfrom vclip_jax.console import commands\ncommands.prepare()\n"
        "from huggingface_hub import hf_hub_download\n"
        "logging.getLogger('huggingface_hub.utils').warning('retrying')\n"
        "logging.getLogger('huggingface_hub.utils').error('told')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr.strip() == "told"


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
        starts = ("commands.start(main)", "commands.prepare()", "script()")
        assert any(call in start.partition("\n\n\n")[0] for call in starts), path


def test_a_bar_lasts_when_its_reader_is_gone(monkeypatch):
    reading, writing = os.pipe()
    os.close(reading)
    gone = os.fdopen(writing, "w", 1)
    monkeypatch.setattr(sys, "stderr", gone)
    bar = terminal.bar(total=3, unit=" x", mininterval=0)
    others = [threading.Thread(target=bar.update, daemon=True) for _ in range(3)]
    for other in others:
        other.start()
    for other in others:
        other.join(10)
        assert not other.is_alive()
    bar.close()
    with pytest.raises(BrokenPipeError):
        gone.close()
