"""The registry on MLflow: aliases and never stages, safetensors and never pickle.

MLflow's creates are not idempotent, so run and version carry the cycle's id as a tag and are
searched for first. Importing mlflow takes seconds, so it is imported where it is used.
Source: mlflow 3.17, store/model_registry/sqlalchemy_store.py.
"""

import base64
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

from deltawheel.contracts.addresses import without_password
from deltawheel.contracts.errors import ConfigError, CycleError, DeltawheelError, RetryLaterError
from deltawheel.contracts.gate import GateDecision
from deltawheel.contracts.ids import digest_of
from deltawheel.contracts.promotion import Champion, RegisteredVersion
from deltawheel.contracts.settings import Settings
from deltawheel.contracts.slices import SliceManifest
from deltawheel.infra.http_probe import ask

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = [
    "CHAMPION_ALIAS",
    "DIGEST_TAG",
    "LINEAGE_TAG",
    "MODEL_FOLDER",
    "MlflowRegistry",
    "ask_server",
]

CHAMPION_ALIAS: Final = "champion"
PREVIOUS_ALIAS: Final = "previous"
CYCLE_TAG: Final = "deltawheel.cycle_id"
DIGEST_TAG: Final = "deltawheel.adapter_digest"
LINEAGE_TAG: Final = "deltawheel.lineage_depth"
MODEL_FOLDER: Final = "model"

_ADAPTER_FILE: Final = "adapter_model.safetensors"
_DATASET_DIGEST_CHARS: Final = 36
_ENVIRONMENT: Final = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # One try of 8 s at most: a step's lease outlives it, and the step itself is tried again.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "8",
    "MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT": "600",
    "GIT_PYTHON_REFRESH": "quiet",
}
_ABSENT: Final = frozenset({"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"})
_PASSING: Final = frozenset({"INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "RESOURCE_EXHAUSTED"})


@dataclass(slots=True)
class MlflowRegistry:
    """The `Registry` port on an MLflow tracking URI, local (SQLite and a folder) or remote."""

    settings: Settings
    _opened: "MlflowClient | None" = field(default=None, init=False)

    def champion(self, download_to: Path) -> Champion:
        """Return whom the alias names, its model folder downloaded; no alias means the base.

        Raises:
            CycleError: the version holds no adapter, or not the one that was registered.
            RetryLaterError: the registry does not answer.
        """
        name = self.settings.registered_model
        with self._answering():
            version = self._alias(CHAMPION_ALIAS)
            if version is None:
                return Champion(model_name=name)
            found = self._client.get_model_version(name, version)
            folder = self._download(version, download_to)
        weights = folder / _ADAPTER_FILE
        if not weights.is_file():
            raise CycleError(
                f"version {version} of {name} holds no {_ADAPTER_FILE}; point the alias "
                f"{CHAMPION_ALIAS} at a version of this wheel"
            )
        digest = digest_of(weights.read_bytes())
        registered = found.tags.get(DIGEST_TAG, digest)
        if digest != registered:
            raise CycleError(
                f"version {version} of {name} was registered with adapter {registered}, but its "
                f"file is {digest}: the artifact was changed or damaged"
            )
        return Champion(
            model_name=name,
            version=version,
            adapter_path=str(folder),
            adapter_digest=digest,
            lineage_depth=int(found.tags.get(LINEAGE_TAG, 0)),
        )

    def record_run(
        self,
        cycle_id: str,
        *,
        parameters: Mapping[str, str],
        metrics: Mapping[str, float],
        manifest: SliceManifest,
        decision: GateDecision,
        artifacts: Path,
    ) -> str:
        """Write the cycle's run, or finish the one that an earlier attempt began.

        Raises:
            RetryLaterError: the registry does not answer.
        """
        with self._answering():
            run = self._find_run(cycle_id) or self._client.create_run(
                self._experiment_id(), run_name=cycle_id, tags={CYCLE_TAG: cycle_id}
            )
            run_id = str(run.info.run_id)
            if run.info.status == "FINISHED":
                return run_id
            self._log_figures(run_id, parameters, metrics, decision)
            self._client.log_inputs(run_id, [_dataset(manifest)])
            self._client.log_artifacts(run_id, str(artifacts))
            self._client.set_terminated(run_id)
        return run_id

    def add_version(self, cycle_id: str, run_id: str, *, tags: Mapping[str, str]) -> str:
        """Make the version whose source is the run's `model` folder, once; return its number.

        The source is the artifact's own address, so that a download needs nothing but the
        registry's: an absolute path beside SQLite, a proxied one behind a server.
        """
        name = self.settings.registered_model
        with self._answering():
            from mlflow.exceptions import MlflowException

            found = self._client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'")
            if found:
                return str(found[0].version)
            try:
                self._client.create_registered_model(name)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            source = f"{self._client.get_run(run_id).info.artifact_uri}/{MODEL_FOLDER}"
            made = self._client.create_model_version(
                name, source, run_id=run_id, tags={**tags, CYCLE_TAG: cycle_id}
            )
        return str(made.version)

    def versions(self) -> list[RegisteredVersion]:
        """Return all versions of the wheel's model, oldest first.

        Raises:
            RetryLaterError: the registry does not answer.
        """
        name = self.settings.registered_model
        if self._is_unborn:
            return []
        with self._answering():
            found = list(self._client.search_model_versions(f"name = '{name}'"))
            aliases = self._client.get_registered_model(name).aliases if found else {}
        rows = [_registered(version, aliases) for version in found]
        return sorted(rows, key=lambda row: int(row.version))

    def move_champion(self, version: str, *, replaces: str | None) -> None:
        """Point `champion` at the version, and `previous` at the one it replaces.

        Raises:
            CycleError: the alias names neither of the two: somebody moved it by hand.
        """
        name = self.settings.registered_model
        with self._answering():
            now = self._alias(CHAMPION_ALIAS)
            if now == version:
                return
            if now != replaces:
                raise CycleError(
                    f"the alias {CHAMPION_ALIAS} of {name} names {_named(now)}, but this cycle "
                    f"compared its candidate with {_named(replaces)}: it was moved by hand; run "
                    "another cycle, which starts from it"
                )
            if replaces is not None:
                self._client.set_registered_model_alias(name, PREVIOUS_ALIAS, replaces)
            self._client.set_registered_model_alias(name, CHAMPION_ALIAS, version)

    @property
    def _is_unborn(self) -> bool:
        """Whether this is a local registry that no cycle has written: asking would make one."""
        return self._database is not None and not self._database.is_file()

    @property
    def _database(self) -> Path | None:
        path = self.settings.registry_uri.removeprefix("sqlite:///")
        return None if path == self.settings.registry_uri else Path(path)

    def _make_database(self, path: Path) -> None:
        """Make MLflow's database under another name first.

        MLflow makes its tables one migration after the other: killed between two of them, it would
        find for ever after that some of them are there already.
        """
        from mlflow.store.db.utils import _initialize_tables, create_sqlalchemy_engine

        draft = path.with_name(f"{path.name}.{os.getpid()}.part")
        draft.unlink(missing_ok=True)
        engine = create_sqlalchemy_engine(f"sqlite:///{draft}")
        try:
            _initialize_tables(engine)
        finally:
            engine.dispose()
        with suppress(FileExistsError):  # another process was first
            os.link(draft, path)
        draft.unlink()

    @property
    def _client(self) -> Any:  # noqa: ANN401
        if self._opened is None:
            for noisy in ("alembic", "mlflow"):
                logging.getLogger(noisy).setLevel(logging.ERROR)
            from mlflow import MlflowClient

            self.settings.registry_folder.mkdir(parents=True, exist_ok=True)
            if self._database is not None and self._is_unborn:
                self._make_database(self._database)
            uri = self.settings.registry_uri
            self._opened = MlflowClient(tracking_uri=uri, registry_uri=uri)
        return self._opened

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """Tell MLflow's errors apart, and keep its own use of deprecated calls to itself."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Before the import: that is when MLflow decides whether to report to its makers.
            for name, value in _ENVIRONMENT.items():
                os.environ.setdefault(name, value)
            yield from self._answers()

    def _answers(self) -> Iterator[None]:
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import OperationalError, SQLAlchemyError

        try:
            yield
        except MlflowException as error:
            is_passing = error.error_code in _PASSING
            raise (RetryLaterError if is_passing else CycleError)(self._said(error)) from error
        except SQLAlchemyError as error:
            # MLflow lets these through while it opens its own database.
            is_passing = isinstance(error, OperationalError)
            raise (RetryLaterError if is_passing else CycleError)(self._said(error)) from error

    def _said(self, error: Exception) -> str:
        """Return its first line; both this and the URI may hold the registry's password."""
        return without_password(
            f"MLflow at {self.settings.registry_uri}: {str(error).splitlines()[0]}"
        )

    def _alias(self, alias: str) -> str | None:
        from mlflow.exceptions import MlflowException

        try:
            found = self._client.get_model_version_by_alias(self.settings.registered_model, alias)
        except MlflowException as error:
            if error.error_code in _ABSENT:
                return None
            raise
        return str(found.version)

    def _download(self, version: str, download_to: Path) -> Path:
        from mlflow.artifacts import download_artifacts

        name = self.settings.registered_model
        source = self._client.get_model_version_download_uri(name, version)
        download_to.mkdir(parents=True, exist_ok=True)
        got = download_artifacts(
            artifact_uri=source,
            dst_path=str(download_to),
            tracking_uri=self.settings.registry_uri,
        )
        return Path(got)

    def _experiment_id(self) -> str:
        name = self.settings.registered_model
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        is_local = self.settings.registry_uri.startswith("sqlite:")
        artifacts = (self.settings.registry_folder / "artifacts").resolve()
        return str(
            self._client.create_experiment(
                name, artifact_location=artifacts.as_uri() if is_local else None
            )
        )

    def _find_run(self, cycle_id: str) -> Any | None:  # noqa: ANN401
        found = self._client.search_runs(
            [self._experiment_id()],
            filter_string=f"tags.`{CYCLE_TAG}` = '{cycle_id}'",
            max_results=1,
        )
        return found[0] if found else None

    def _log_figures(
        self,
        run_id: str,
        parameters: Mapping[str, str],
        metrics: Mapping[str, float],
        decision: GateDecision,
    ) -> None:
        from mlflow.entities import Metric, Param, RunTag

        self._client.log_batch(
            run_id,
            # Timestamp 0, so that a second attempt at logging the same figure changes nothing.
            metrics=[Metric(name, value, 0, 0) for name, value in metrics.items()],
            params=[Param(name, value) for name, value in parameters.items()],
            tags=[
                RunTag("deltawheel.verdict", decision.verdict.value),
                RunTag("deltawheel.reasons", "; ".join(decision.reasons)),
                RunTag("deltawheel.evaluation_digest", decision.evaluation_digest),
            ],
        )


async def ask_server(uri: str, *, timeout_s: float) -> None:
    """Ask a registry behind HTTP for its models, with the credentials that MLflow would send.

    Without MLflow's own client, which takes seconds to import and makes the registry's folder.

    Raises:
        RetryLaterError: it cannot be reached, or is busy or broken.
        ConfigError: it refuses the credentials.
        DeltawheelError: what answers is no MLflow.
    """
    parts = urlsplit(uri)
    address = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl().rstrip("/")
    answer = await ask(
        f"{address}/api/2.0/mlflow/registered-models/search?max_results=1",
        headers=_credentials(parts.username, parts.password),
        timeout_s=timeout_s,
    )
    if answer.status in (401, 403):
        raise ConfigError(f"MLflow at {address} refuses the credentials ({answer.status})")
    if answer.status == 429 or answer.status >= 500:
        raise RetryLaterError(f"MLflow at {address} answers {answer.status}")
    if answer.status != 200 or not answer.body.lstrip().startswith(b"{"):
        raise DeltawheelError(f"{address} answers {answer.status}, but not as MLflow does")


def _credentials(user: str | None, password: str | None) -> dict[str, str]:
    user = os.environ.get("MLFLOW_TRACKING_USERNAME") or unquote(user or "")
    password = os.environ.get("MLFLOW_TRACKING_PASSWORD") or unquote(password or "")
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    if user and password:
        encoded = base64.b64encode(f"{user}:{password}".encode()).decode()
        return {"Authorization": f"Basic {encoded}"}
    return {"Authorization": f"Bearer {token}"} if token else {}


def _registered(version: Any, aliases: Mapping[str, str]) -> RegisteredVersion:  # noqa: ANN401
    number = str(version.version)
    return RegisteredVersion(
        version=number,
        # Asked of the model: a search for versions may leave aliases out.
        aliases=tuple(sorted(name for name, names in aliases.items() if str(names) == number)),
        cycle_id=version.tags.get(CYCLE_TAG),
        run_id=version.run_id,
        registered_at=datetime.fromtimestamp(version.creation_timestamp / 1_000, UTC),
    )


def _named(version: str | None) -> str:
    return "the base (no alias)" if version is None else f"version {version}"


def _dataset(manifest: SliceManifest) -> Any:  # noqa: ANN401
    from mlflow.entities import Dataset, DatasetInput

    digest = manifest.file_digest.removeprefix("sha256:")[:_DATASET_DIGEST_CHARS]
    return DatasetInput(
        Dataset(
            name=manifest.slice_id,
            digest=digest,
            source_type="deltawheel",
            source=manifest.spec.model_dump_json(),
            profile=manifest.model_dump_json(exclude={"spec"}),
        )
    )
