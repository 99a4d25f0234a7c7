"""Each test runs in a subprocess, because it redirects or closes the stderr of its process."""

import subprocess
import sys
import textwrap

BEGINNING = """
import os, re, sys
from boneage_jax.data import native_messages
say = lambda line: os.write(2, line.encode() + b"\\n")
"""


def ended(body: str) -> subprocess.CompletedProcess[str]:
    code = BEGINNING + textwrap.dedent(body)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


def test_matching_lines_are_collected_and_others_written_to_stderr():
    found = ended(
        """
        say("before")
        with native_messages.collected(re.compile("^Corrupt")) as lines:
            say("Corrupt data: 3 bytes")
            say("something else")
            with native_messages.collected(re.compile("inner")) as inner:
                say("inner")
                say("Corrupt again")
        say("after")
        print(lines, inner)
        """
    )
    assert found.stdout == "['Corrupt data: 3 bytes', 'Corrupt again'] ['inner']\n"
    assert found.stderr == "before\nsomething else\nafter\n"


def test_stderr_is_restored_after_an_error():
    found = ended(
        """
        try:
            with native_messages.collected(re.compile("Corrupt")) as lines:
                say("Corrupt")
                raise ValueError
        except ValueError:
            say("after")
        print(lines)
        """
    )
    assert (found.stdout, found.stderr) == ("['Corrupt']\n", "after\n")


def test_a_process_without_stderr_keeps_running():
    found = ended(
        """
        os.close(2)
        with native_messages.collected(re.compile("")) as lines:
            print("done", lines)
        """
    )
    assert found.stdout == "done []\n"
