"""The groups whose offsets an audit shows are those that read, and only what runs is asked."""

from pathlib import Path

import pytest

from deltawheel.contracts.errors import RetryLaterError
from deltawheel.contracts.settings import Settings
from deltawheel.ops.topic_audit import GROUPS, read_offsets
from deltawheel.services.curation.handler import Curation
from deltawheel.services.generation.handler import Generation
from deltawheel.services.judging.handler import Judging


def test_groups_are_the_services_that_move_prompts_on_with_what_they_read() -> None:
    handlers = (Generation, Judging, Curation)
    fields = [handler.__dataclass_fields__ for handler in handlers]
    assert {each["name"].default: each["topics"].default for each in fields} == dict(GROUPS)


def test_broker_of_a_stopped_wheel_is_not_asked(tmp_path: Path) -> None:
    with pytest.raises(RetryLaterError, match="no wheel runs here"):
        read_offsets(Settings(wheel="test", home=tmp_path))
