"""A small client of the gateway, for the operator's commands."""

import http.client
import json
import os
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

from deltawheel.contracts.errors import DeltawheelError, RetryLaterError

__all__ = ["GatewayClient", "RefusedPromptsError"]

_TIMEOUT_S = 60
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""The gateway runs on this machine: a proxy for the world outside cannot reach it."""


class RefusedPromptsError(DeltawheelError):
    """The gateway refuses prompts of a request, by index; it accepted none of it."""

    def __init__(self, detail: str, refused: Mapping[int, str]) -> None:
        super().__init__(detail)
        self.refused = refused


class GatewayClient:
    """Speaks to one gateway; the token comes from DELTAWHEEL_GATEWAY_TOKEN if it asks for one."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self._token = os.environ.get("DELTAWHEEL_GATEWAY_TOKEN")

    def submit(self, bodies: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Submit prompts as one batch; return their ids as the store holds them.

        Raises:
            RefusedPromptsError: some are wrong, and none was accepted.
            RetryLaterError: the gateway or its store is away.
            DeltawheelError: it asks for a token, failed, or answers as no gateway does.
        """
        request = urllib.request.Request(
            f"{self._url}/v1/prompts",
            data=json.dumps({"prompts": list(bodies)}).encode(),
            headers={"Content-Type": "application/json", **self._authorization()},
        )
        try:
            with _DIRECT.open(request, timeout=_TIMEOUT_S) as response:
                answer = json.load(response)
        except urllib.error.HTTPError as error:
            raise _explain(error) from error
        except (OSError, http.client.HTTPException, ValueError, RecursionError) as error:
            raise RetryLaterError(
                f"the gateway at {self._url} does not answer ({error}): is the wheel up?"
            ) from error
        accepted = answer.get("accepted") if isinstance(answer, dict) else None
        if not isinstance(accepted, list):
            raise DeltawheelError(
                f"{self._url} answered {response.status} without saying what it accepted: "
                "does a gateway listen there?"
            )
        return accepted

    def _authorization(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token}"} if self._token else {}


def _explain(error: urllib.error.HTTPError) -> DeltawheelError:
    problem = _problem(error)
    detail = str(problem.get("detail") or error.reason)
    if error.code == 422:
        return RefusedPromptsError(detail, _refused(problem.get("errors")))
    if error.code == 401:
        return DeltawheelError("the gateway asks for a token: set DELTAWHEEL_GATEWAY_TOKEN")
    if error.code == 503:
        return RetryLaterError(detail)
    return DeltawheelError(f"the gateway answered {error.code}: {detail}")


def _problem(error: urllib.error.HTTPError) -> dict[str, Any]:
    """Return the problem details of an answer; a server of another kind may give none."""
    try:
        problem = json.load(error)
    except (OSError, http.client.HTTPException, ValueError, RecursionError):
        return {}
    return problem if isinstance(problem, dict) else {}


def _refused(faults: object) -> dict[int, str]:
    return {
        fault["index"]: str(fault.get("detail"))
        for fault in (faults if isinstance(faults, list) else ())
        if isinstance(fault, dict) and isinstance(fault.get("index"), int)
    }
