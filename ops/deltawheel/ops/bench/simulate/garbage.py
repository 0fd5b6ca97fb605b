"""What strangers publish: nothing of it may stop the wheel, and each ends as a dead letter."""

from deltawheel.contracts.clock import Random
from deltawheel.contracts.events import OutboundMessage
from deltawheel.contracts.topics import EVENT_TYPES, Topic

__all__ = ["make_garbage"]


def make_garbage(topic: Topic, random: Random, *, wheel: str) -> OutboundMessage:
    """Make a message that can never be decoded; each is one of its own."""
    mark = random.token()
    types = [event.name for event in EVENT_TYPES if event.topic is topic]
    type_name, value = random.choice(
        (
            (random.choice(types), b'{"mark": "' + mark.encode()),
            (random.choice(types), b'{"mark": "' + mark.encode() + b'"}'),
            (random.choice(types), b"\xff\x00" + mark.encode()),
            ("io.example.unknown.v1", mark.encode()),
            (None, mark.encode()),
        )
    )
    headers = () if type_name is None else (("ce_type", type_name.encode()),)
    return OutboundMessage(topic=topic.of(wheel), key=mark.encode(), value=value, headers=headers)
