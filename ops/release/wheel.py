"""Run by ops/release/check with a Python that has the wheel and nothing else: wheel.py WHEEL "skytale VERSION"."""

import asyncio
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import skytale

wheel, version = Path(sys.argv[1]), sys.argv[2]
assert f"skytale {skytale.__version__}" == version, skytale.__version__
assert Path(skytale.__file__).is_relative_to(sys.prefix), skytale.__file__

# The oldest C library that the name promises has all that the library asks for, and nothing else is needed.
floor = int(re.search(r"-cp310-abi3-manylinux_2_(\d+)_", wheel.name)[1])
names = zipfile.ZipFile(wheel).namelist()
[library] = [name for name in names if name.endswith(".so")]
native = Path(skytale.__file__).with_name(Path(library).name)
asked = subprocess.run(["/usr/bin/objdump", "-Tp", native], check=True, capture_output=True, text=True).stdout
assert max(int(minor) for minor in re.findall(r"GLIBC_2\.(\d+)", asked)) == floor
needed = set(re.findall(r"NEEDED\s+(\S+)", asked))
assert needed <= {"libc.so.6", "libm.so.6", "libgcc_s.so.1", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"}, needed
# Symbols of CPython that are private and not in its stable ABI would tie the library to one version.
private = set(re.findall(r"\*UND\*.*\s(_Py\w+)", asked))
stable = {"_Py_NoneStruct", "_Py_TrueStruct", "_Py_FalseStruct", "_Py_IncRef", "_Py_DecRef", "_Py_Dealloc"}
assert private <= stable, private - stable
assert "skytale/py.typed" in names and "skytale/_skytale.pyi" in names


async def works() -> None:
    """A vault is made and opened again, without a network."""
    with tempfile.TemporaryDirectory() as folder:
        options = {"api_url": "http://127.0.0.1:1", "api_key": "sk_live_" + "a" * 43, "connect": False}
        async with skytale.Agent.open(f"{folder}/a.vault", **options) as agent:
            channel = await agent.ensure_channel("tasks")
            await channel.send("hello")
        async with skytale.Agent.open(f"{folder}/a.vault", **options) as agent:
            assert (await agent.ensure_channel("tasks")).id == channel.id
            assert len(await (await agent.ensure_channel("tasks")).outbox()) >= 1


asyncio.run(works())
print(f"wheel: installed, works; {wheel.stat().st_size} bytes, C library 2.{floor} or later")
