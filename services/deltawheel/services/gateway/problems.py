"""Errors as RFC 9457 problem details, so that clients read one form whatever went wrong."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from deltawheel.contracts.errors import InvalidRecordError, RetryLaterError
from deltawheel.contracts.membership import ChangeRefusedError, NoMemberError

__all__ = ["BatchRefusedError", "install", "problem"]


class BatchRefusedError(InvalidRecordError):
    """Some prompts of a batch are wrong; none of it was accepted. Carries them by index."""

    def __init__(self, refused: Mapping[int, str], size: int) -> None:
        super().__init__(
            f"{len(refused)} of {size} prompts are refused, and none of them was accepted"
        )
        self.refused = refused


def problem(
    status: HTTPStatus,
    detail: str,
    *,
    errors: Sequence[Mapping[str, Any]] = (),
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """Make a problem response; `errors` name the single faults, where there are several."""
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": status.phrase,
        "status": status.value,
        "detail": detail,
    }
    if errors:
        body["errors"] = list(errors)
    return JSONResponse(body, status.value, headers=headers, media_type="application/problem+json")


def install(app: FastAPI) -> None:
    """Answer every error of the application with a problem."""

    @app.exception_handler(RequestValidationError)
    def _malformed(_: Request, error: RequestValidationError) -> JSONResponse:
        faults = [
            {"pointer": "/" + "/".join(map(str, fault["loc"])), "detail": fault["msg"]}
            for fault in error.errors()
        ]
        first = f"{faults[0]['pointer']}: {faults[0]['detail']}"
        return problem(HTTPStatus.UNPROCESSABLE_ENTITY, first, errors=faults)

    @app.exception_handler(BatchRefusedError)
    def _refused(_: Request, error: BatchRefusedError) -> JSONResponse:
        faults = [{"index": index, "detail": text} for index, text in error.refused.items()]
        return problem(HTTPStatus.UNPROCESSABLE_ENTITY, str(error), errors=faults)

    @app.exception_handler(NoMemberError)
    def _unknown(_: Request, error: NoMemberError) -> JSONResponse:
        return problem(HTTPStatus.NOT_FOUND, str(error))

    @app.exception_handler(ChangeRefusedError)
    def _unfitting(_: Request, error: ChangeRefusedError) -> JSONResponse:
        return problem(HTTPStatus.CONFLICT, str(error))

    @app.exception_handler(InvalidRecordError)
    def _invalid(_: Request, error: InvalidRecordError) -> JSONResponse:
        return problem(HTTPStatus.UNPROCESSABLE_ENTITY, str(error))

    @app.exception_handler(RetryLaterError)
    def _busy(_: Request, error: RetryLaterError) -> JSONResponse:
        return problem(HTTPStatus.SERVICE_UNAVAILABLE, str(error), headers={"Retry-After": "1"})

    @app.exception_handler(HTTPException)
    def _http(_: Request, error: HTTPException) -> JSONResponse:
        status = HTTPStatus(error.status_code)
        return problem(status, str(error.detail), headers=error.headers)

    @app.exception_handler(Exception)
    def _failed(_: Request, error: Exception) -> JSONResponse:
        # It is raised again behind this answer, and logged by the server.
        return problem(HTTPStatus.INTERNAL_SERVER_ERROR, "the gateway failed; its log says why")
