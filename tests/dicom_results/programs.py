"""Other people's DICOM programs, which tests run where they are installed (Debian: dcmtk, dicom3tools, orthanc)."""

import shutil
import subprocess

import pytest


def need(*names):
    """Skips the test without these programs."""
    if missing := [name for name in names if shutil.which(name) is None]:
        pytest.skip(f"{', '.join(missing)} not installed")


def run(*command, timeout=60):
    """Runs a program to its end; returns its status, and stdout and stderr as one text."""
    done = subprocess.run(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout
    )
    return done.returncode, done.stdout
