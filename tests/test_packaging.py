"""What is installed: the wheels hold what they should, and importing is light."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECTS = {
    ".": {"streamgan"},
    "training": {"streamgan_training"},
    "plugins/hello": {"streamgan_hello.py"},
    "plugins/openvino": {"streamgan_openvino.py"},
    "plugins/ray": {"streamgan_ray"},
    "plugins/smooth": {"streamgan_smooth"},
}


@pytest.mark.parametrize("project", PROJECTS)
def test_wheel(project: str, tmp_path: Path) -> None:
    code = (
        "from hatchling.builders.wheel import WheelBuilder; import sys; "
        "print(*WheelBuilder(sys.argv[1]).build(directory=sys.argv[2], versions=['standard']))"
    )
    pytest.importorskip("hatchling")
    command = [sys.executable, "-c", code, str(ROOT / project), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as content:
        names = content.namelist()
        entry_points = next((name for name in names if name.endswith("entry_points.txt")), None)
        assert entry_points is not None
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == PROJECTS[project]
    if project == ".":
        shipped = {path.name for path in (ROOT / "presets").iterdir() if path.is_file()}
        assert {Path(name).name for name in names if name.startswith("streamgan/_presets/")} == shipped
        assert any(name.endswith("licenses/LICENSE") for name in names)


@pytest.mark.parametrize("project", PROJECTS)
def test_names_and_pythons(project: str) -> None:
    declared = tomllib.loads((ROOT / project / "pyproject.toml").read_text())["project"]
    assert declared["name"].startswith("streamgan")
    assert declared["requires-python"] == ">=3.11"
    assert declared["license"] == "Apache-2.0"


@pytest.mark.parametrize("module", ["streamgan", "streamgan.api", "streamgan.plugins", "streamgan.settings"])
def test_imports_are_light(module: str) -> None:
    code = f"import sys, {module}; print(*{{'torch', 'av', 'cv2', 'onnxruntime', 'pydantic'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_runtime_does_not_need_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None; "
        "from streamgan import bench, live, pipeline, plugins; registry = plugins.load(); "
        "print(*[failure for failure in registry.failures if 'streamgan.' in failure.plugin])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
