"""The demo, with and without sabotage, as a user runs it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from deltawheel.contracts.errors import ConfigError
from deltawheel.contracts.settings import Settings
from deltawheel.infra import wiring
from deltawheel.infra.listening import find_free_port, port_in_use
from deltawheel.infra.sandbox.paths import base_path
from deltawheel.ops.supervisor.ports import listeners
from deltawheel.ops.supervisor.runfile import read_run
from tests.components import require
from tests.ops.conftest import DemoRun
from tests.waiting import wait_for
from tests.wheels import DELTAWHEEL, leftovers

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1200)]


def test_demo_promotes_because_out_of_domain_improves(demo: DemoRun) -> None:
    assert demo.process.returncode == 0, demo.process.stderr[-3000:]
    decision = demo.summary["decision"]
    assert decision["verdict"] == "promote"
    [overall] = [
        row
        for row in decision["comparisons"]
        if row["role"] == "out-of-domain" and row["suite"] is None
    ]
    assert overall["lower"] > 0
    assert overall["num_items"] >= 2_000


def test_demo_accounts_for_every_prompt(demo: DemoRun) -> None:
    audit = demo.cli("audit")
    assert audit["is_clean"]
    assert audit["in_flight"] == 0
    assert audit["prompts"] == demo.summary["prompts"] == sum(audit["outcomes"].values())


def test_demo_registers_one_version_and_makes_it_champion(demo: DemoRun) -> None:
    [version] = demo.cli("versions")
    assert version["aliases"] == ["champion"]
    assert version["cycle_id"] == demo.summary["cycle"]["cycle_id"]


def test_promoted_model_is_in_the_pool(demo: DemoRun) -> None:
    names = [generator["name"] for generator in demo.cli("generators", "list")]
    assert {"strong", "mid", "weak"} < set(names)
    assert len(names) == 4


def test_demo_leaves_no_process(demo: DemoRun) -> None:
    assert leftovers(demo.home) == []


def test_demo_stays_within_its_memory(demo: DemoRun) -> None:
    assert demo.summary["peak_memory_bytes"] < 8e9


def test_no_pickle_lies_anywhere(demo: DemoRun) -> None:
    suspicious = {".pkl", ".pickle", ".pt", ".pth", ".bin", ".joblib"}
    assert [path for path in demo.home.rglob("*") if path.suffix in suspicious] == []


def test_inverted_judge_is_refused_and_leaves_the_registry_as_it_was(sabotage: DemoRun) -> None:
    assert sabotage.process.returncode == 3, sabotage.process.stderr[-3000:]
    decision = sabotage.summary["decision"]
    assert decision["verdict"] == "reject"
    [overall] = [
        row
        for row in decision["comparisons"]
        if row["role"] == "out-of-domain" and row["suite"] is None
    ]
    assert overall["upper"] < decision["thresholds"]["min_gain"]
    assert sabotage.cli("versions") == []
    assert sabotage.cli("audit")["is_clean"]


CHAMPION_CHECK = """
import json, sys
import mlflow
from pathlib import Path

uri, name, items_file, out = sys.argv[1:]
mlflow.set_tracking_uri(uri)
folder = Path(mlflow.artifacts.download_artifacts(f"models:/{name}@champion", dst_path=out))
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

found = next(folder.rglob("adapter_config.json")).parent
assert json.loads((found / "adapter_config.json").read_text())["base_model_name_or_path"] == "base"
tokenizer = AutoTokenizer.from_pretrained(found)
tokenizer.padding_side = "left"
base = AutoModelForCausalLM.from_pretrained(found / "base")
items = json.loads(Path(items_file).read_text())


def accuracy(model):
    right = 0
    for start in range(0, len(items), 100):
        batch = items[start : start + 100]
        chats = [[{"role": "user", "content": text}] for text, _ in batch]
        texts = tokenizer.apply_chat_template(chats, tokenize=False, add_generation_prompt=True)
        given = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        given.pop("token_type_ids", None)
        done = model.generate(**given, max_new_tokens=64, do_sample=False)
        for row, (_, answer) in zip(done[:, given["input_ids"].shape[1] :], batch):
            written = tokenizer.decode(row, skip_special_tokens=True)
            right += written.replace(" ", "").rsplit("A:", 1)[-1] == str(answer)
    return right / len(items)


before = accuracy(base)
after = accuracy(PeftModel.from_pretrained(base, found))
print(json.dumps({"base": before, "champion": after}))
"""


def test_champion_loads_anywhere_by_the_servers_address_and_beats_the_base(
    demo: DemoRun, tmp_path: Path
) -> None:
    from deltawheel.infra.sandbox.grammar import suite_problems

    items = [(p.text, p.answer) for p in suite_problems("out_of_domain_mixed", 300, seed=77)]
    items_file = tmp_path / "items.json"
    items_file.write_text(json.dumps(items))
    state, base = demo.home / "state", base_path()
    state_aside, base_aside = demo.home / "state-aside", base.with_name("base-aside")
    port = find_free_port()
    registry = demo.home / "registry"
    argv = [str(Path(sys.executable).with_name("mlflow")), "server", "--workers", "1"]
    argv += ["--backend-store-uri", f"sqlite:///{registry / 'mlflow.db'}"]
    argv += ["--artifacts-destination", str(registry / "artifacts")]
    argv += ["--host", "127.0.0.1", "--port", str(port)]
    shutil.move(state, state_aside)
    shutil.move(base, base_aside)
    server = subprocess.Popen(argv, start_new_session=True, stdout=subprocess.DEVNULL)
    try:
        uri = f"http://127.0.0.1:{port}"
        wait_for(lambda: is_up(f"{uri}/health"), timeout_s=90, what="the MLflow server")
        argv = [sys.executable, "-c", CHAMPION_CHECK, uri, "deltawheel-default"]
        done = subprocess.run(
            [*argv, str(items_file), str(tmp_path)], capture_output=True, text=True, check=False
        )
    finally:
        os.killpg(server.pid, 9)
        server.wait()
        shutil.move(state_aside, state)
        shutil.move(base_aside, base)
    assert done.returncode == 0, done.stderr[-3000:]
    accuracy = json.loads(done.stdout.splitlines()[-1])
    assert accuracy["champion"] > accuracy["base"] + 0.1


def is_up(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False


@dataclass(frozen=True, kw_only=True)
class RunningDemo:
    """A small demo that runs until it is interrupted."""

    home: Path
    process: "subprocess.Popen[bytes]"
    errors: Path

    @property
    def settings(self) -> Settings:
        """The settings of the run, with its ports."""
        return wiring.load_settings(self.home / "state" / "run" / "settings.yaml")

    def has_broker(self) -> bool:
        """Whether the broker's process exists."""
        run = read_run(Settings(home=self.home))
        states = run.processes if run else ()
        return any(state.name == "broker" and state.guard is not None for state in states)

    def has_trace(self) -> bool:
        """Whether the store holds a trace."""
        try:
            with wiring.reading(Settings(home=self.home)) as store:
                return store.progress().traces > 0
        except ConfigError:
            return False  # there is no store yet

    def wait_for(self, is_so: Callable[[], bool], *, timeout_s: float) -> None:
        def look() -> bool:
            assert self.process.poll() is None, self.errors.read_text()
            return is_so()

        wait_for(look, timeout_s=timeout_s, what=f"the demo comes to {is_so.__name__}")


@contextmanager
def running_demo(folder: Path) -> Iterator[RunningDemo]:
    require("vllm")
    home, errors = folder / "home", folder / "errors.txt"
    argv = [DELTAWHEEL, "--home", str(home), "demo", "--prompts", "300", "--items", "50"]
    with errors.open("wb") as output:
        process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=output)
    try:
        yield RunningDemo(home=home, process=process, errors=errors)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(90)


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def assert_ctrl_c_ends_it_in_order(demo: RunningDemo) -> None:
    """Press Ctrl-C; the demo must end with one word, and all that it had started with it."""
    supervisor = psutil.Process(demo.process.pid)
    family = supervisor.children(recursive=True)
    ports = [listener for listener in listeners(demo.settings) if listener.port]
    assert family
    assert len(ports) == 3
    demo.process.send_signal(signal.SIGINT)
    assert demo.process.wait(60) == 130
    *before, last = demo.errors.read_text().splitlines()
    assert last == "stopped"
    assert all(line.startswith("[") for line in before), before
    assert [process for process in family if is_alive(process)] == []
    assert leftovers(demo.home) == []
    assert [listener for listener in ports if port_in_use(listener.host, listener.port)] == []
    assert read_run(Settings(home=demo.home)) is None


def test_ctrl_c_while_the_demo_boots_leaves_nothing_behind(tmp_path: Path) -> None:
    with running_demo(tmp_path) as demo:
        demo.wait_for(demo.has_broker, timeout_s=60)
        assert_ctrl_c_ends_it_in_order(demo)


def test_ctrl_c_while_the_demo_streams_leaves_nothing_behind(tmp_path: Path) -> None:
    with running_demo(tmp_path) as demo:
        demo.wait_for(demo.has_trace, timeout_s=300)
        assert_ctrl_c_ends_it_in_order(demo)
