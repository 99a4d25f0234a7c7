"""Other people's DICOM programs, which tests run where they are installed (Debian: dcmtk, dicom3tools, orthanc)."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def find(name):
    """Path of a program outside of the Python environment: pynetdicom installs programs with the names of dcmtk's."""
    own = Path(sys.executable).parent
    folders = [folder for folder in os.get_exec_path() if Path(folder) != own]
    return shutil.which(name, path=os.pathsep.join(folders))


def need(*names):
    """Skips the test without these programs; `.ci/run` installs all of them."""
    if missing := [name for name in names if find(name) is None]:
        pytest.skip(f"{', '.join(missing)} not installed")


def run(name, *arguments, timeout=60):
    """Runs a program to its end; returns its status, and stdout and stderr as one text."""
    command = [find(name), *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout)
    return done.returncode, done.stdout
