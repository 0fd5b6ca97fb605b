"""Opening, on either database: what is made, what is refused, and that any number may come."""

import subprocess
import sys
from collections.abc import Callable

import pytest

from deltawheel.contracts.errors import ConfigError
from deltawheel.infra.store.store import SqlStore
from tests.infra.store.stored import add_judged, in_threads
from tests.records import WHEEL, a_pair, a_paired_end


@pytest.mark.integration
def test_reading_a_database_where_no_wheel_ran_says_so(postgres_url: str) -> None:
    for _ in range(2):
        with pytest.raises(ConfigError, match="no wheel has run here yet: start one with deltawh"):
            SqlStore.open_existing(postgres_url, wheel=WHEEL)


def test_what_was_stored_is_there_after_reopening(
    url: str, opened: Callable[..., SqlStore]
) -> None:
    prompt = add_judged(first := opened())
    pair = a_pair(prompt)
    first.close_groups([a_paired_end(pair)])
    first.close()
    assert opened(must_exist=True).pair(pair.pair_id) == pair


def test_threads_that_open_a_new_store_together_all_succeed(
    opened: Callable[..., SqlStore],
) -> None:
    stores = in_threads(6, lambda _: opened())
    assert [store.progress().prompts for store in stores] == [0] * 6


def test_processes_that_open_a_new_store_together_all_succeed(url: str) -> None:
    program = (
        "from deltawheel.infra.store.store import SqlStore\n"
        f"store = SqlStore({url!r}, wheel='test')\n"
        "assert store.cycles(1) == []\n"
        "store.close()\n"
    )
    started = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(6)]
    assert [process.wait(timeout=60) for process in started] == [0] * 6


def test_importing_the_store_loads_no_heavy_vendor() -> None:
    program = (
        "import sys; import deltawheel.infra.store.store\n"
        "print([name for name in ('torch', 'pandas', 'mlflow', 'aiohttp') if name in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    assert said.stdout.strip() == b"[]"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("no url", "store.url is no database URL"),
        ("mysql://host/name", "'mysql', but the store runs on"),
        ("sqlite://", "store.url must name a file"),
    ],
)
def test_wrong_url_is_refused(url: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        SqlStore(url, wheel=WHEEL)
