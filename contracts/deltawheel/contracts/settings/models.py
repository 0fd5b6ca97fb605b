"""Settings of a model that is asked, whatever it is asked for."""

from pydantic import Field, ValidationInfo, field_validator

from deltawheel.contracts.record import Name
from deltawheel.contracts.settings.section import Section
from deltawheel.contracts.settings.values import Endpoint

__all__ = ["ModelSettings"]


class ModelSettings(Section):
    """A model on one of our servers, or behind any OpenAI-compatible endpoint."""

    name: Name = Field(description="What rotation, metrics and tables call it.")
    server: Name | None = Field(default=None, description="One of `servers`; or give `endpoint`.")
    endpoint: Endpoint | None = Field(
        default=None,
        description="Base URL of an OpenAI-compatible API, for example http://host:8000/v1.",
    )
    model: str | None = Field(
        default=None, description="Model name at the endpoint, or the server's base if unset."
    )
    revision: str | None = Field(
        default=None,
        description="Exact revision of an endpoint's model, to be changed with its weights; own "
        "servers' models have the digest of theirs.",
    )
    family: Name | None = Field(
        default=None,
        description="Whose model it is by origin, such as llama: families prefer themselves.",
    )
    api_key_env: str | None = Field(
        default=None, description="Name of the environment variable with the endpoint's key."
    )

    @field_validator("endpoint")
    @classmethod
    def _is_somewhere(cls, endpoint: str | None, info: ValidationInfo) -> str | None:
        if "server" in info.data and (info.data["server"] is None) == (endpoint is None):
            raise ValueError("give either 'server' or 'endpoint', one of the two")
        return endpoint

    @field_validator("model")
    @classmethod
    def _is_named_there(cls, model: str | None, info: ValidationInfo) -> str | None:
        if info.data.get("endpoint") is not None and model is None:
            raise ValueError("an endpoint needs 'model', the name to ask for there")
        return model
