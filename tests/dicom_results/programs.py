"""Third-party DICOM programs that tests run where installed (Debian: dcmtk, dicom3tools, orthanc)."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def find(name):
    """Path of a program outside the Python environment: pynetdicom installs programs under dcmtk's names."""
    own = Path(sys.executable).parent
    folders = [folder for folder in os.get_exec_path() if Path(folder) != own]
    return shutil.which(name, path=os.pathsep.join(folders))


def need(*names):
    """Skips the test if a program is missing; `.ci/run` installs all of them."""
    if missing := [name for name in names if find(name) is None]:
        pytest.skip(f"{', '.join(missing)} not installed")


def run(name, *arguments, timeout=60):
    """Runs a program to completion; returns its exit status and combined stdout and stderr."""
    command = [find(name), *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout)
    return done.returncode, done.stdout
