#!/usr/bin/env python3
"""Builds the wheel of the package `skytale`: pip's build backend (PEP 517), and a command for ops/release/build.

    python3 sdk/python/backend.py OUT-FOLDER        prints the wheel's path

It runs `cargo build --release`, or takes a library that is built already from SKYTALE_PYTHON_NATIVE, and packs it with the
Python half. It needs nothing from PyPI. The same input and SOURCE_DATE_EPOCH give the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PACKAGE = HERE / "python" / "skytale"
# The stable ABI of the oldest Python, as in the features of pyo3 in Cargo.toml.
ABI = "cp310-abi3"
LIBRARY = "skytale/_skytale.abi3.so"


def build_wheel(wheel_directory: str, config_settings: Any = None, metadata_directory: Any = None) -> str:
    """What pip calls. Gives the wheel's name."""
    with tempfile.TemporaryDirectory() as work:
        library = Path(work, "library.so")
        shutil.copyfile(_native(), library)
        if shutil.which("strip"):
            subprocess.run(["strip", "--strip-all", library], check=True)
        tag = f"{ABI}-{_platform(library)}"
        files = {f"skytale/{path.name}": path.read_bytes() for path in PACKAGE.iterdir() if path.suffix != ".so" and path.is_file()}
        files[LIBRARY] = library.read_bytes()
    version = _version()
    folder = f"skytale-{version}.dist-info"
    files[f"{folder}/METADATA"] = _metadata(version).encode()
    files[f"{folder}/WHEEL"] = f"Wheel-Version: 1.0\nGenerator: skytale\nRoot-Is-Purelib: false\nTag: {tag}\n".encode()
    files[f"{folder}/licenses/LICENSE"] = (ROOT / "LICENSE").read_bytes()
    record = "".join(f"{name},sha256={_digest(data)},{len(data)}\n" for name, data in sorted(files.items()))
    files[f"{folder}/RECORD"] = f"{record}{folder}/RECORD,,\n".encode()

    name = f"skytale-{version}-{tag}.whl"
    # Zip knows no time before 1980.
    at = time.gmtime(max(int(os.environ.get("SOURCE_DATE_EPOCH", "0")), 315_532_800))[:6]
    with zipfile.ZipFile(Path(wheel_directory, name), "w", zipfile.ZIP_DEFLATED, compresslevel=6) as wheel:
        for path, data in sorted(files.items()):
            entry = zipfile.ZipInfo(path, at)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (0o100755 if path == LIBRARY else 0o100644) << 16
            wheel.writestr(entry, data)
    return name


def build_sdist(sdist_directory: str, config_settings: Any = None) -> str:
    """There is none: the library is built from the whole workspace."""
    raise NotImplementedError("install from a clone of the repository, or a wheel")


def _native() -> Path:
    if built := os.environ.get("SKYTALE_PYTHON_NATIVE"):
        return Path(built)
    cargo = shutil.which("cargo")
    if cargo is None:
        raise SystemExit("cargo is needed to build this package: https://rustup.rs")
    subprocess.run([cargo, "build", "--locked", "--release", "-p", "skytale-python"], cwd=ROOT, check=True)
    return Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target") / "release" / "lib_skytale.so"


def _platform(library: Path) -> str:
    """The platform's tag: manylinux of the newest version of the C library that the library asks for."""
    machine = platform.machine()
    if not shutil.which("objdump"):
        # For this machine: pip takes it, and an index would not.
        return f"linux_{machine}"
    said = subprocess.run(["objdump", "-T", library], check=True, capture_output=True, text=True).stdout
    newest = max(int(minor) for minor in re.findall(r"GLIBC_2\.(\d+)", said))
    return f"manylinux_2_{newest}_{machine}"


def _version() -> str:
    workspace = (ROOT / "Cargo.toml").read_text().partition("[workspace.package]")[2]
    found = re.search(r'^version = "(.+)"$', workspace, re.MULTILINE)
    assert found is not None
    return found[1]


def _metadata(version: str) -> str:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    project = tomllib.loads((HERE / "pyproject.toml").read_text())["project"]
    lines = [
        "Metadata-Version: 2.4",
        f"Name: {project['name']}",
        f"Version: {version}",
        f"Summary: {project['description']}",
        f"License-Expression: {project['license']}",
        "License-File: LICENSE",
        f"Requires-Python: {project['requires-python']}",
        *(f"Classifier: {each}" for each in project["classifiers"]),
        "Description-Content-Type: text/markdown",
    ]
    return "\n".join(lines) + "\n\n" + (HERE / project["readme"]).read_text()


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


if __name__ == "__main__":
    print(Path(sys.argv[1], build_wheel(sys.argv[1])))
