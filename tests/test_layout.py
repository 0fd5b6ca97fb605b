from importlib.metadata import version
from pathlib import Path

import deltawheel.contracts
import deltawheel.infra
import deltawheel.ops
import deltawheel.pipelines
import deltawheel.services

ROOT = Path(__file__).parents[1]
ROOTS = ("contracts", "infra", "ops", "pipelines", "services")


def test_no_root_hides_the_others() -> None:
    for root in ROOTS:
        assert not (ROOT / root / "deltawheel" / "__init__.py").exists()


def test_each_portion_is_typed() -> None:
    for root in ROOTS:
        assert (ROOT / root / "deltawheel" / root / "py.typed").is_file()


def test_all_portions_are_one_package() -> None:
    modules = (
        deltawheel.contracts,
        deltawheel.infra,
        deltawheel.ops,
        deltawheel.pipelines,
        deltawheel.services,
    )
    assert [module.__name__ for module in modules] == [f"deltawheel.{root}" for root in ROOTS]


def test_version_comes_from_the_distribution() -> None:
    assert version("deltawheel")
