"""The files made from the code and checked in: schemas, examples, AsyncAPI, settings template.

`python -m deltawheel.contracts.generated [FOLDER]` writes them anew; a test fails when they are
stale. Foreign clients read these instead of our classes.
"""

import json
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from deltawheel.contracts.assignment import Assignment
from deltawheel.contracts.cycle import Cycle
from deltawheel.contracts.evaluation import Evaluation
from deltawheel.contracts.examples import examples
from deltawheel.contracts.gate import GateDecision
from deltawheel.contracts.generator import Generator
from deltawheel.contracts.prompt import PromptSubmission
from deltawheel.contracts.record import Record
from deltawheel.contracts.settings.template import settings_template
from deltawheel.contracts.slices import SliceManifest
from deltawheel.contracts.topics import EVENT_TYPES, Topic

__all__ = ["STANDING_RECORDS", "generated_files", "write"]

STANDING_RECORDS: Mapping[str, type[Record]] = {
    "assignment": Assignment,
    "cycle": Cycle,
    "evaluation": Evaluation,
    "gate-decision": GateDecision,
    "generator": Generator,
    "slice-manifest": SliceManifest,
}
"""Records that travel on no topic, but over HTTP, into the registry or beside a cycle's files."""

_FOLDERS = ("schemas", "examples")

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_TOPIC_MEANING = {
    Topic.PROMPTS: "Accepted prompts, keyed by prompt_id.",
    Topic.TRACES: "Traces as generators write them, keyed by prompt_id.",
    Topic.JUDGEMENTS: "Scores, and slots or prompts that failed, keyed by prompt_id.",
    Topic.PAIRS: "Stored and quarantined preference pairs, keyed by prompt_id.",
    Topic.PROMOTIONS: "Promoted models, keyed by model name.",
    Topic.DEAD_LETTERS: (
        "Original records that could not be processed, key and value untouched; "
        "__connect.errors.* headers say why."
    ),
}


def generated_files() -> dict[str, str]:
    """Return the text of every generated file by its path below `contracts/`."""
    shown = examples()
    files = {
        f"schemas/{kind.name}.json": _json(_schema(kind.name, kind.record)) for kind in EVENT_TYPES
    }
    for kind in EVENT_TYPES:
        example = shown[kind.record].model_dump(mode="json")
        files[f"examples/{kind.name}.json"] = _json(example)
    for name, record in STANDING_RECORDS.items():
        files[f"schemas/{name}.json"] = _json(_schema(f"io.deltawheel.{name}.v1", record))
    submission = {"$schema": _DIALECT, **PromptSubmission.model_json_schema()}
    files["schemas/prompt-submission.json"] = _json(submission)
    files["asyncapi.json"] = _json(_asyncapi())
    files["deltawheel.yaml"] = settings_template()
    return files


def write(folder: Path) -> None:
    """Write the generated files and remove schemas and examples that nothing makes any more."""
    files = generated_files()
    for place in _FOLDERS:
        for stale in (folder / place).glob("*.json"):
            if f"{place}/{stale.name}" not in files:
                stale.unlink()
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def _json(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _schema(name: str, record: type[Record]) -> dict[str, Any]:
    return {
        "$schema": _DIALECT,
        "$id": f"urn:{name}",
        **record.model_json_schema(mode="serialization"),
    }


def _asyncapi() -> dict[str, Any]:
    messages = {
        kind.name: {
            "name": kind.name,
            "summary": kind.meaning,
            "contentType": "application/json",
            "payload": {"$ref": f"schemas/{kind.name}.json"},
            "examples": [{"payload": {"$ref": f"examples/{kind.name}.json"}}],
            "headers": {
                "type": "object",
                "required": ["ce_specversion", "ce_id", "ce_source", "ce_type", "content-type"],
                "properties": {"ce_type": {"const": kind.name}},
            },
        }
        for kind in EVENT_TYPES
    }
    channels = {
        topic.value: {
            "address": f"{{wheel}}.{topic.value}",
            "description": _TOPIC_MEANING[topic],
            "parameters": {"wheel": {"default": "default"}},
            "messages": {
                kind.name: {"$ref": f"#/components/messages/{kind.name}"}
                for kind in EVENT_TYPES
                if kind.topic is topic
            },
        }
        for topic in Topic
    }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Deltawheel",
            "version": version("deltawheel"),
            "description": "CloudEvents 1.0 in Kafka's binary content mode.",
        },
        "channels": channels,
        "components": {"messages": messages},
    }


if __name__ == "__main__":
    write(Path(sys.argv[1] if len(sys.argv) > 1 else "contracts"))
