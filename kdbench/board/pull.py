"""A team's runs back from W&B, as folders that ``kdbench.board.read`` reads."""

from __future__ import annotations

import json
import re
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_origin

from pydantic import BaseModel, ValidationError

from kdbench.board.submissions import PULLED
from kdbench.config import PHASES, RunConfig, RunResult
from kdbench.errors import BadInput
from kdbench.files import atomic_text, identify
from kdbench.run.manifest import read_manifest
from kdbench.run.store import RUNS_FILE, Run
from kdbench.run.words import counted
from kdbench.tracking.client import check_name, client, faults

_PAGE = 200
"""Runs a request."""
_MANIFEST = "manifest.json"


class Pulled(NamedTuple):
    """What came, and where it is."""

    trials: int
    """Finished trials, each once."""
    sweeps: int
    """Folders written: one a sweep and member."""
    unfinished: int
    """Runs without a result (still going, or killed), left out."""
    unreadable: int
    """Runs that this version of kdbench cannot read, left out."""
    folder: Path

    def __str__(self) -> str:
        left = {"unfinished": self.unfinished, "unreadable": self.unreadable}
        out = ", ".join(f"{count} {what}" for what, count in left.items() if count)
        got = f"{counted(self.trials, 'trial')} of {counted(self.sweeps, 'sweep')} in {self.folder}"
        return got + (f" (left out: {out})" if out else "")


class _Found(NamedTuple):
    """One finished trial as W&B has it."""

    trial: Run
    attempt: int
    started: str


def pull(*, project: str, out: Path, entity: str | None = None, base_url: str | None = None) -> Pulled:
    """Write every finished trial of a W&B project to ``out``/<entity>-<project>/<sweep>-<member>/.

    Only what the runs' config and summary hold is fetched: epochs stay in W&B. A config whose id is not the one it
    was uploaded with is left out. Pulling again replaces what an earlier pull of that project wrote.

    Raises:
        BadInput: no key, no such project, an invalid name.
        MachineFault: the server was not reached or refused.
    """
    check_name("project", project)
    check_name("entity", entity)
    with tempfile.TemporaryDirectory(prefix="kdbench-") as folder, client(Path(folder), base_url=base_url) as api:
        path = f"{entity or api.default_entity}/{project}"
        runs = _fetch(api, path)
        source = {"server": str(api.settings["base_url"]), "path": path}
    return _write(runs, out / path.replace("/", "-"), source)


def _fetch(api: Any, path: str) -> list[Any]:
    """All runs of kdbench in a project, with config and summary, some requests for hundreds of them."""
    with faults(f"the runs of {path} could not be fetched"):
        try:
            runs = list(api.runs(path, filters={"jobType": {"$in": list(PHASES)}}, per_page=_PAGE, lazy=False))
        except ValueError as error:
            if "Could not find project" in str(error):
                raise BadInput(f"no W&B project {path}, or no access to it") from error
            raise
    return [run for run in runs if run.job_type in PHASES]


def _write(runs: list[Any], target: Path, source: Mapping[str, str]) -> Pulled:
    """The trials of ``runs`` as folders below ``target``; earlier ones there are removed."""
    sweeps: dict[tuple[str, str], dict[str, _Found]] = defaultdict(dict)
    unfinished = unreadable = 0
    for run in runs:
        if run.summary_metrics.get("status") is None:
            unfinished += 1
            continue
        found = _trial(run.config, run.summary_metrics, str(run.id), str(run.created_at or ""))
        if found is None:
            unreadable += 1
            continue
        name, held = found.trial.result.id, sweeps[str(run.config.get("sweep")), _member(run)]
        if name not in held or held[name].attempt < found.attempt:  # the last attempt is the whole one
            held[name] = found
    for old in sorted(target.glob(f"*/{_MANIFEST}")):
        if read_manifest(old.parent).get(PULLED):
            old.unlink()
            (old.parent / RUNS_FILE).unlink(missing_ok=True)
            if not any(old.parent.iterdir()):
                old.parent.rmdir()
    for (sweep, member), held in sorted(sweeps.items()):
        _keep(target / safe(f"{sweep}-{member}" if member else sweep), sweep, member, held, source)
    return Pulled(sum(map(len, sweeps.values())), len(sweeps), unfinished, unreadable, target)


def _keep(folder: Path, sweep: str, member: str, held: Mapping[str, _Found], source: Mapping[str, str]) -> None:
    times = sorted(found.started for found in held.values())
    manifest = {"sweep": sweep, "by": member, "started": times[0], "finished": times[-1], PULLED: dict(source)}
    dumped = [[part.model_dump(mode="json") for part in held[name].trial[:2]] for name in sorted(held)]
    lines = [json.dumps({"config": config, "epochs": [], "result": result}) for config, result in dumped]
    atomic_text(folder / RUNS_FILE, "".join(line + "\n" for line in lines))
    atomic_text(folder / _MANIFEST, json.dumps(manifest, indent=1) + "\n")


def _trial(config: Mapping[str, Any], summary: Mapping[str, Any], run: str, created: str) -> _Found | None:
    """The trial that a run recorded; None where config or summary are not what kdbench wrote."""
    about = {"id": config.get("trial_id"), "attempts": config.get("attempt", 1), "wandb_run": run}
    numbers = {name: summary[name] for name in RunResult.model_fields if summary.get(name) is not None}
    try:
        held = config_of(config)
        result = RunResult.model_validate(numbers | about)
    except ValidationError:
        return None
    if held.id != result.id:
        return None
    return _Found(Run(held, result, []), result.attempts, str(config.get("started") or created))


def config_of(flat: Mapping[str, Any]) -> RunConfig:
    """The trial's config out of what ``kdbench.tracking.record.describe`` made of it.

    Raises:
        ValidationError: when it is not that.
    """
    config = RunConfig.model_validate(nested(flat, RunConfig))
    if config.id != flat.get("trial_id"):  # a teacher is described as its own, hard labels by their sweep's
        config = RunConfig.model_validate(nested({**flat, "teacher": None}, RunConfig))
    return config


def nested(flat: Mapping[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    """The inverse of ``kdbench.tracking.record.flatten`` for the fields of ``model``: ``recipe_lr`` into ``recipe``."""
    data: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        kind = field.annotation
        inner = {key.removeprefix(f"{name}_"): value for key, value in flat.items() if key.startswith(f"{name}_")}
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            data[name] = nested(inner, kind)
        elif get_origin(kind) is dict and get_args(kind)[0] is str:
            data[name] = inner
        elif name in flat:
            data[name] = flat[name]
    return data


def _member(run: Any) -> str:
    """Who the run belongs to, as W&B knows them."""
    user = getattr(run, "user", None)
    return str(getattr(user, "username", "") or "")


def safe(name: str) -> str:
    """``name`` as a folder's name: equal names give equal ones, and no name leads out of the folder."""
    clean = re.sub(r"[^\w.-]+", "-", name).strip("-.")[:100]
    return clean if clean and clean == name else f"{clean or 'sweep'}-{identify(name)[:4]}"
