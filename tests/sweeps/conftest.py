"""Lets the tests of this folder import ``toy``, and starts a PostgreSQL for them.

One thread: matrices of these sizes are faster that way on a busy machine.
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A PostgreSQL of its own, in a temporary folder, on a loopback port."""
    pytest.importorskip("psycopg")
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    if not found:
        pytest.skip("PostgreSQL is not installed")
    folder = Path(tempfile.mkdtemp(prefix="thetaone-postgres-"))
    as_owner: list[str] = []
    if os.getuid() == 0:  # the server refuses to run as root
        shutil.chown(folder, "postgres")
        as_owner = ["runuser", "-u", "postgres", "--"]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    binaries, data = found[-1].parent, folder / "data"
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": "/"}
    create = [binaries / "initdb", "-D", data, "-A", "trust", "-U", "thetaone", "--no-sync"]
    subprocess.run([*as_owner, *map(str, create)], check=True, **quiet)  # pyright: ignore
    control = [*as_owner, str(found[-1]), "-D", str(data), "-w"]
    begin = [*control, "-o", options, "-l", str(folder / "log"), "start"]
    subprocess.run(begin, check=True, **quiet)  # pyright: ignore
    yield f"postgresql://thetaone:hunter2@127.0.0.1:{port}/postgres"
    subprocess.run([*control, "-m", "immediate", "stop"], check=True, **quiet)  # pyright: ignore
    shutil.rmtree(folder)


@pytest.fixture(params=["journal", "sqlite", "postgres"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        return request.getfixturevalue("server")
    return {"journal": f"{tmp_path}/s.journal", "sqlite": f"sqlite:///{tmp_path}/s.db"}[
        request.param
    ]
