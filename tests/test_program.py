"""How a command ends, in its own process: exit status and stderr."""

import signal
import subprocess
import sys
import textwrap

import pytest

BEGINNING = """
import errno, faulthandler, logging.handlers, os, signal, sys, threading, time
from boneage_jax import program
from boneage_jax.errors import BoneAgeError
"""


def ended(body: str, redirection: str = "", **options) -> subprocess.CompletedProcess[str]:
    """Runs `main` with this body as a program, with a redirection such as the shell's `2>&-`."""
    code = BEGINNING + f"def main():\n{textwrap.indent(textwrap.dedent(body), '    ')}"
    code += "\nprogram.leave(lambda: program.run(main))"
    command = ["sh", "-c", f'exec "$0" "$@" {redirection}', sys.executable, "-c", code]
    options = {"stdout": subprocess.PIPE} | options
    return subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=60, **options)


def test_the_return_value_is_the_exit_status():
    found = ended("print('done'); return 2")
    assert (found.returncode, found.stdout, found.stderr) == (2, "done\n", "")


def test_an_error_is_reported_in_one_line():
    found = ended("raise BoneAgeError('hand.png is empty')")
    assert (found.returncode, found.stderr) == (1, "error: hand.png is empty\n")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_gives_a_one_line_error_and_its_own_status(number, status):
    found = ended(
        f"""
        try:
            os.kill(os.getpid(), {int(number)})
            time.sleep(60)
        finally:
            print("cleaned up")
        """
    )
    assert (found.returncode, found.stdout) == (status, "cleaned up\n")
    assert found.stderr == f"error: stopped by {number.name}\n"


def test_a_signal_during_a_destructor_still_ends_the_command():
    found = ended(
        """
        class Dropping:
            def __del__(self):
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(1)

        Dropping()
        time.sleep(60)
        """
    )
    assert (found.returncode, found.stderr) == (143, "error: stopped by SIGTERM\n")


def test_other_exceptions_in_a_destructor_are_shown():
    found = ended("""
        class Failing:
            def __del__(self):
                raise ValueError("seen")

        Failing()
        return 0
        """)
    assert (found.returncode, "ValueError: seen" in found.stderr) == (0, True)


def test_a_second_signal_ends_the_command_at_once():
    found = ended(
        """
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(60)
        finally:
            os.kill(os.getpid(), signal.SIGINT)
            print("not reached", flush=True)
        """
    )
    assert (found.returncode, found.stdout, found.stderr) == (-signal.SIGINT, "", "")


@pytest.mark.parametrize(
    ("ending", "stderr"), [("return 0", ""), ("raise BoneAgeError('stopped')", "error: stopped\n")]
)
def test_ctrl_c_while_python_waits_for_a_thread_ends_the_command_at_once(ending, stderr):
    found = ended(
        f"""
        def outlasting():
            while signal.getsignal(signal.SIGINT) is program._stop:
                time.sleep(0.01)
            time.sleep(0.2)  # by now, the interpreter waits for this thread
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(30)

        threading.Thread(target=outlasting).start()
        {ending}
        """
    )
    assert (found.returncode, found.stderr) == (-signal.SIGINT, stderr)


def test_a_dropped_signal_is_not_raised_again_after_the_command_has_ended():
    found = ended(
        """
        class Dropping:
            def __del__(self):
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(1)

        program._AGAIN = 0.5
        Dropping()
        threading.Thread(target=time.sleep, args=(1,)).start()
        return 0
        """
    )
    assert (found.returncode, found.stderr) == (0, "")


def test_a_crash_in_native_code_leaves_a_traceback():
    found = ended("faulthandler._sigsegv()")
    assert found.returncode == -signal.SIGSEGV
    assert "Fatal Python error: Segmentation fault" in found.stderr
    assert "in main" in found.stderr


def test_the_interpreter_is_not_finalised():
    found = ended(
        """
        class Crashing:
            def __del__(self):
                faulthandler._sigsegv()

        program.kept = Crashing()  # as native threads do that outlive their objects
        return 2
        """
    )
    assert (found.returncode, found.stderr) == (2, "")


@pytest.mark.parametrize(
    ("ending", "status"), [("return 3", 3), ("sys.exit()", 0), ("sys.exit(4)", 4), ("sys.exit('no')", 1), ("1 / 0", 1)]
)
def test_exit_handlers_run_and_output_is_flushed(tmp_path, ending, status):
    found = ended(
        f"""
        import atexit, tempfile
        handler = logging.handlers.MemoryHandler(9, target=logging.FileHandler({str(tmp_path / "log")!r}))
        logging.getLogger().addHandler(handler)
        logging.warning("logged")
        program.kept = tempfile.TemporaryDirectory(dir={str(tmp_path)!r})
        atexit.register(print, "registered")
        threading.Thread(target=lambda: (time.sleep(0.5), print("waited for", end=" "))).start()
        {ending}
        """
    )
    assert (found.returncode, found.stdout) == (status, "waited for registered\n")
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("log", "logged\n")]


def test_signal_handlers_of_the_caller_are_restored():
    code = BEGINNING + "signal.signal(15, signal.SIG_IGN); program.run(lambda: 0); print(signal.getsignal(15).name)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "SIG_IGN\n"


@pytest.mark.parametrize("flush", [True, False])
def test_a_full_output_device_gives_a_one_line_error(flush):
    with open("/dev/full", "w") as full:
        found = ended(f"print('result', flush={flush}); return 0", stdout=full)
    assert found.returncode == 1
    assert found.stderr == "error: cannot continue: No space left on device (while writing output)\n"


def test_messages_to_a_closed_stderr_do_not_reach_stdout():
    found = ended("print('[]'); print('note', file=sys.stderr); raise BoneAgeError('empty')", "2>&-")
    assert (found.returncode, found.stdout) == (1, "[]\n")


def test_a_closed_stdout_ends_the_command_normally():
    found = ended("print('[]'); return 2", ">&-")
    assert (found.returncode, found.stderr) == (2, "")


def test_an_output_that_is_closed_early_gives_no_message():
    reader = "import sys; sys.stdin.readline()"
    with subprocess.Popen([sys.executable, "-c", reader], stdin=subprocess.PIPE) as head:
        assert head.stdin is not None
        found = ended("while True: print('line')", stdout=head.stdin)
        head.stdin.close()
    assert (found.returncode, found.stderr) == (1, "")


def test_an_os_error_gives_a_one_line_error_with_the_file():
    found = ended("raise OSError(errno.ENOSPC, 'No space left on device', 'out/metrics.json')")
    assert (found.returncode, found.stderr) == (
        1,
        "error: cannot continue: No space left on device (out/metrics.json)\n",
    )


def test_a_name_that_is_too_long_gives_a_one_line_error():
    found = ended(f"os.stat({'a' * 300!r})")
    assert (found.returncode, found.stderr) == (1, f"error: cannot continue: File name too long ({'a' * 300})\n")


def test_a_programming_error_keeps_its_traceback():
    found = ended("raise ValueError('never')")
    assert found.returncode == 1
    assert "Traceback" in found.stderr
