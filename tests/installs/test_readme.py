"""How README and quickstart install the package, word by word, in an environment that has only Airflow."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from dev.constraints import AIRFLOW, FOLDER

ROOT = Path(__file__).parents[2]
NEWEST = "3.3"
LEFT_OUT = {".git", ".venvs", ".cache", "site", "dist"}


def commands_of(document: str) -> list[str]:
    """The blocks that install something, as a reader sees them: without what is in comments."""
    text = re.sub(r"<!--.*?-->", "", (ROOT / document).read_text(), flags=re.DOTALL)
    return [
        block for block in re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE) if "pip install" in block
    ]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clone") / "repository"
    shutil.copytree(ROOT, folder, ignore=lambda _, names: LEFT_OUT & set(names))
    return folder


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment with Airflow and pip, and nothing of ours."""
    home = tmp_path_factory.mktemp("readme")
    uv = os.environ.get("UV", "uv")
    subprocess.run([uv, "venv", "--quiet", "--seed", home / "venv"], check=True)
    airflow = [f"apache-airflow=={AIRFLOW[NEWEST][0]}", "--constraint", str(FOLDER / f"airflow-{NEWEST}.txt")]
    subprocess.run([uv, "pip", "install", "--quiet", "--python", home / "venv/bin/python", *airflow], check=True)
    path = f"{home / 'venv/bin'}{os.pathsep}/usr/bin{os.pathsep}/bin"
    return {"PATH": path, "HOME": str(home), "AIRFLOW_HOME": str(home / "airflow")}


@pytest.mark.parametrize("document", ["README.md", "docs/quickstart.md", "docs/testing.md"])
def test_a_reader_can_install_the_package(document: str, clone: Path, environment: dict[str, str]) -> None:
    blocks = commands_of(document)
    assert blocks
    for block in blocks:
        done = subprocess.run(
            ["bash", "-ec", f"{block}\nairflow providers list"],
            cwd=clone,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
        assert "airflow-provider-skyvern" in done.stdout
        subprocess.run(
            ["pip", "uninstall", "--yes", "--quiet", "airflow-provider-skyvern"],
            env={**os.environ, **environment},
            check=True,
        )
