"""The installed package: everything is in it, it is found from a checkout, and it imports quickly."""

import ast
import configparser
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

import astra_gym

ROOT = Path(__file__).resolve().parent.parent
CODE = {"astra_gym": ROOT / "astra_gym", "astra_gym.envs": ROOT / "envs", "astra_gym.agents": ROOT / "agents"}


def setup_cfg() -> configparser.ConfigParser:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    return config


def copy_checkout(folder: Path) -> Path:
    """Copy what a build needs into ``folder``: nothing is written to the original, no old build product gets in."""
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("astra_gym", "envs", "agents"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / name)
    return folder


def pip(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", *map(str, arguments), "--no-deps", "--no-build-isolation"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def run_python(code: str, cwd: Path, *options: str) -> str:
    """Run ``code`` in a fresh process that finds packages in ``cwd`` first, as ``python`` in that folder does."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, *options, "-c", code]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", copy_checkout(folder / "checkout"), "--wheel-dir", folder)
    (built,) = folder.glob("*.whl")
    return built


def test_setup_cfg_lists_every_package():
    listed = setup_cfg()["options"]["packages"].split()
    found = set()
    for name, folder in CODE.items():
        for init in folder.rglob("__init__.py"):
            found.add(".".join([name, *init.parent.relative_to(folder).parts]))
    assert sorted(listed) == sorted(found)


def test_every_module_lies_in_a_package():
    modules = {module.parent for folder in CODE.values() for module in folder.rglob("*.py")}
    assert [folder for folder in modules if not (folder / "__init__.py").exists()] == []


def test_every_imported_package_is_required():
    imported = set()
    for module in (path for folder in CODE.values() for path in folder.rglob("*.py")):
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                imported.add(str(node.module).partition(".")[0])
    options = setup_cfg()
    lines = [options["options"]["install_requires"], *options["options.extras_require"].values()]
    required = {re.split(r"[\[<>=]", line)[0] for line in "\n".join(lines).split()}
    distributions = metadata.packages_distributions()
    for name in imported - sys.stdlib_module_names - {"astra_gym"}:
        assert required & {re.sub("[-_.]+", "-", found).lower() for found in distributions[name]}, name


def test_wheel_holds_all_code_and_data(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for name, folder in CODE.items():
        for path in folder.rglob("*"):
            if path.is_file() and path.suffix != ".pyc":
                assert f"{name.replace('.', '/')}/{path.relative_to(folder).as_posix()}" in names
    assert not any(name.startswith(("envs/", "agents/", "tests/", "scripts/")) for name in names)


def test_wheel_has_the_version_of_the_code(wheel):
    archive = zipfile.ZipFile(wheel)
    (description,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    assert f"\nVersion: {astra_gym.__version__}\n" in archive.read(description).decode()
    assert re.search(rf"^## \[{re.escape(astra_gym.__version__)}\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


def test_unpacked_wheel_is_all_that_an_environment_needs(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = (
        "import gymnasium as gym, sys\n"
        "env = gym.make('astra_gym:AstraDrive-v0')\n"
        "env.reset(seed=0); env.step(env.action_space.sample())\n"
        "print(sys.modules['astra_gym'].__file__, sys.modules['astra_gym.envs'].__file__, sep='\\n')"
    )
    expected = [tmp_path / "astra_gym" / "__init__.py", tmp_path / "astra_gym" / "envs" / "__init__.py"]
    assert run_python(code, cwd=tmp_path).splitlines() == [str(path) for path in expected]


def test_checkout_uses_its_own_folders_beside_an_installed_copy(tmp_path):
    checkout, other, site = copy_checkout(tmp_path / "checkout"), copy_checkout(tmp_path / "other"), tmp_path / "site"
    pip("install", "--editable", other, "--target", site)
    # Without -S, an editable install of this checkout would come before the other copy's.
    packages = sysconfig.get_paths()["purelib"]
    code = (
        f"import site, sys; site.addsitedir({str(site)!r}); sys.path.append({packages!r})\n"
        "import astra_gym.envs, astra_gym.agents\n"
        "print(astra_gym.__file__, astra_gym.envs.__file__, astra_gym.agents.__file__, sep='\\n')"
    )

    def files(root: Path) -> list[str]:
        return [str(root / name / "__init__.py") for name in ("astra_gym", "envs", "agents")]

    assert run_python(code, checkout, "-S").splitlines() == files(checkout)
    assert run_python(code, tmp_path, "-S").splitlines() == files(other), "the other copy is not really installed"


def test_import_brings_no_heavy_package():
    code = "import astra_gym, sys; print(sorted({'torch', 'diffusers', 'transformers', 'pygame'} & set(sys.modules)))"
    assert run_python(code, ROOT) == "[]"


def test_import_takes_less_than_300_ms():
    # Beside Gymnasium, which every user imports anyway; the best of three, because other processes may be busy.
    code = "import gymnasium, time; start = time.perf_counter(); import astra_gym; print(time.perf_counter() - start)"
    assert min(float(run_python(code, ROOT)) for _ in range(3)) < 0.3


def test_readme_example_runs():
    example, *_ = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    shape = run_python(example + "print(observation.shape, terminated)", ROOT)
    assert shape == "(4, 64, 64, 3) False"
