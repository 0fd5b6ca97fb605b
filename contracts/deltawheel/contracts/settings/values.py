"""Settings that are texts with rules of their own: each is checked as it is read.

Whatever adapters would refuse later is refused here, with what would be valid, so that `deltawheel
config check` can name it. No adapter is imported for that.
"""

import re
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator

from deltawheel.contracts.crontab import Crontab

__all__ = [
    "SANDBOX",
    "SANDBOX_GENERATORS",
    "SANDBOX_PREFIX",
    "SANDBOX_SUITES",
    "Adapter",
    "AnswerPattern",
    "CrontabLine",
    "Endpoint",
    "StoreUrl",
    "SuiteItems",
]

SANDBOX: Final = "sandbox"
SANDBOX_PREFIX: Final = f"{SANDBOX}:"
SANDBOX_GENERATORS: Final = ("strong", "mid", "weak")
SANDBOX_SUITES: Final = ("in_domain", "out_of_domain_times", "out_of_domain_mixed", "guard")
"""The adapters and suites that ship; a test holds them to what the sandbox really has."""

_DATABASES: Final = ("sqlite", "postgresql")


def _checked_pattern(pattern: str) -> str:
    try:
        groups = re.compile(pattern).groups
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"no regular expression: {error}") from error
    if groups < 1:
        raise ValueError(r"it has no group; put parentheses around the answer, as in A:(-?\d+)")
    return pattern


def _checked_endpoint(url: str) -> str:
    try:
        parts = urlsplit(url)
        is_web = parts.scheme in ("http", "https") and bool(parts.hostname)
        is_whole = is_web and parts.port != 0 and not re.search(r"\s", url)
    except ValueError:
        is_whole = False
    if not is_whole:
        raise ValueError(
            "no http or https URL with a host; valid is for example http://host:8000/v1"
        )
    if "@" in parts.netloc:
        raise ValueError(
            "a URL in settings may hold no user or password; put the key into an environment "
            "variable and name it in api_key_env"
        )
    return url


def _checked_crontab(line: str) -> str:
    Crontab.parse(line)
    return line


def _checked_store_url(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    if not separator:
        raise ValueError(
            "no database URL; write sqlite:////path/to/store.db or postgresql://user@host/database"
        )
    database = scheme.partition("+")[0]
    if database not in _DATABASES:
        raise ValueError(
            f"the store does not run on {database!r}; it runs on sqlite, as in "
            "sqlite:////path/to/store.db, and postgresql, as in postgresql://user@host/database"
        )
    if database == "sqlite" and rest.partition("?")[0] in ("", "/", "/:memory:"):
        raise ValueError(
            "it must name a file, as in sqlite:////path/to/store.db: several processes share the "
            "store"
        )
    return url


def _checked_items(items: str) -> str:
    suite = items.removeprefix(SANDBOX_PREFIX)
    if suite != items and suite not in SANDBOX_SUITES:
        raise ValueError(
            f"unknown suite {suite!r}; use one of {', '.join(SANDBOX_SUITES)}, as in "
            f"{SANDBOX_PREFIX}{SANDBOX_SUITES[0]}"
        )
    if suite == items and not items.endswith(".jsonl"):
        raise ValueError(
            "neither sandbox:<suite> nor the path of a file that ends in .jsonl; the suites that "
            f"ship are {', '.join(SANDBOX_SUITES)}"
        )
    return items


def _checked_adapter(adapter: str) -> str:
    name = adapter.removeprefix(SANDBOX_PREFIX)
    if name != adapter and name not in SANDBOX_GENERATORS:
        raise ValueError(
            f"unknown sandbox generator {name!r}; use one of {', '.join(SANDBOX_GENERATORS)}"
        )
    return adapter


AnswerPattern = Annotated[str, AfterValidator(_checked_pattern)]
"""A regular expression with at least one group: the first is the answer."""

Endpoint = Annotated[str, AfterValidator(_checked_endpoint)]
"""The base URL of an OpenAI-compatible API, without credentials."""

CrontabLine = Annotated[str, AfterValidator(_checked_crontab)]
"""Five fields: minute, hour, day, month, weekday."""

StoreUrl = Annotated[str, AfterValidator(_checked_store_url)]
"""A SQLAlchemy URL of a database that the store runs on."""

SuiteItems = Annotated[str, AfterValidator(_checked_items)]
"""`sandbox:<suite>`, or the path of a JSONL file."""

Adapter = Annotated[str, AfterValidator(_checked_adapter)]
"""`sandbox:<name>`, or the path of a folder."""
