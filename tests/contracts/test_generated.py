import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator, ValidationError

from deltawheel.contracts.evaluation import Evaluation, ItemResult, SuiteRole
from deltawheel.contracts.gate import Comparison, GateDecision, Verdict
from deltawheel.contracts.generated import STANDING_RECORDS, generated_files, write
from deltawheel.contracts.record import Record
from deltawheel.contracts.settings import GateSettings, Settings
from deltawheel.contracts.settings.template import settings_template
from deltawheel.contracts.slices import SliceManifest, SliceSpec
from deltawheel.contracts.topics import EVENT_TYPES, EventType
from tests.records import a_cycle, a_generator, an_assignment, seconds

CONTRACTS = Path(__file__).parents[2] / "contracts"
FILES = generated_files()
every_event_type = pytest.mark.parametrize("kind", EVENT_TYPES, ids=lambda kind: str(kind.name))


def some_standing_records() -> dict[str, Record]:
    return {
        "assignment": an_assignment(),
        "cycle": a_cycle(),
        "evaluation": Evaluation(
            cycle_id="cycle_1",
            champion="base",
            candidate="candidate",
            seed=1,
            temperature=0.5,
            items=(
                ItemResult(
                    suite="products",
                    role=SuiteRole.OUT_OF_DOMAIN,
                    item_id="item_1",
                    champion_correct=False,
                    candidate_correct=True,
                ),
            ),
        ),
        "gate-decision": GateDecision(
            cycle_id="cycle_1",
            evaluation_digest="sha256:0",
            thresholds=GateSettings().thresholds(seed=3),
            comparisons=(
                Comparison(
                    suite=None,
                    role=SuiteRole.OUT_OF_DOMAIN,
                    num_items=100,
                    champion_accuracy=0.5,
                    candidate_accuracy=0.6,
                    difference=0.1,
                    lower=0.05,
                    upper=0.15,
                ),
            ),
            smallest_visible_gain=0.02,
            verdict=Verdict.PROMOTE,
            reasons=("it is better",),
        ),
        "generator": a_generator(),
        "slice-manifest": SliceManifest(
            spec=SliceSpec(
                share=Decimal("0.3"),
                rubric_digest="sha256:0",
                judge_revision="sandbox-1",
                paired_before=seconds(9),
            ),
            num_candidates=10,
            num_pairs=3,
            mean_delta=2.0,
            mean_delta_of_candidates=1.0,
            smallest_delta=1.5,
            pair_ids_digest="sha256:1",
            file_digest="sha256:2",
        ),
    }


def schema_of(name: str) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads(FILES[f"schemas/{name}.json"])
    Draft202012Validator.check_schema(schema)
    return schema


@pytest.mark.parametrize("name", sorted(FILES))
def test_checked_in_file_is_what_the_code_says_now(name: str) -> None:
    assert (CONTRACTS / name).read_text() == FILES[name], "run `make schemas`"


@pytest.mark.parametrize("folder", ["schemas", "examples"])
def test_nothing_lies_there_that_nothing_generates(folder: str) -> None:
    checked_in = {f"{folder}/{path.name}" for path in (CONTRACTS / folder).iterdir()}
    assert checked_in == {name for name in FILES if name.startswith(f"{folder}/")}


def test_writing_anew_removes_what_nothing_generates_and_leaves_the_rest(tmp_path: Path) -> None:
    write(tmp_path)
    for folder in ("schemas", "examples"):
        (tmp_path / folder / "io.deltawheel.gone.v1.json").write_text("{}")
    (tmp_path / "deltawheel").mkdir()
    write(tmp_path)
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")}
    assert written == FILES.keys()
    assert (tmp_path / "deltawheel").is_dir()


@every_event_type
def test_example_is_what_the_schema_promises_and_reads_back_as_its_record(kind: EventType) -> None:
    text = FILES[f"examples/{kind.name}.json"]
    Draft202012Validator(schema_of(kind.name)).validate(json.loads(text))
    record = kind.record.model_validate_json(text)
    assert record.model_dump(mode="json") == json.loads(text)


@every_event_type
def test_schema_refuses_an_example_without_one_of_its_keys(kind: EventType) -> None:
    example = json.loads(FILES[f"examples/{kind.name}.json"])
    validator = Draft202012Validator(schema_of(kind.name))
    for key in schema_of(kind.name)["required"]:
        with pytest.raises(ValidationError, match=f"'{key}' is a required property"):
            validator.validate({name: it for name, it in example.items() if name != key})


@pytest.mark.parametrize("name", sorted(STANDING_RECORDS))
def test_record_that_travels_on_no_topic_is_what_its_schema_promises(name: str) -> None:
    record = some_standing_records()[name]
    assert type(record) is STANDING_RECORDS[name]
    Draft202012Validator(schema_of(name)).validate(record.model_dump(mode="json"))


def test_asyncapi_refers_to_files_that_are_there() -> None:
    named = set(re.findall(r'"\$ref": "([^#"]+)"', FILES["asyncapi.json"]))
    events = {
        f"{part}/{kind.name}.json" for kind in EVENT_TYPES for part in ("schemas", "examples")
    }
    assert named == events


def test_settings_template_loads_as_the_defaults() -> None:
    assert Settings(**yaml.safe_load(settings_template())) == Settings()


def test_settings_template_explains_every_key_of_the_top_level() -> None:
    lines = settings_template().splitlines()
    for name in Settings.model_fields:
        line = next(i for i, text in enumerate(lines) if text.startswith(f"{name}:"))
        assert lines[line - 1].startswith("# ")
