"""A leaderboard in W&B: a table in a run, an artifact, a report and a saved view, found again by the next call."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from kdbench.board.leaderboard import Board
from kdbench.board.pages import records, table, text, write
from kdbench.errors import BadInput
from kdbench.files import identify
from kdbench.run.words import counted
from kdbench.tracking.client import check_name, client, faults, run_settings, silence

NAME = "leaderboard"
"""Job type of the run, its display name, the key of its table, and the artifact's name and type."""
TITLE = "kdbench leaderboard"
"""Title of the report and of the saved view: what they are found by."""
_VIEW = "nw-kdbenchlead-v"
"""The saved view's own name; its URL ends in ``?nw=kdbenchlead``."""
_VIEW_QUERY = """
query View($entity: String, $project: String, $viewType: String, $viewName: String) {
  project(name: $project, entityName: $entity) {
    allViews(viewType: $viewType, viewName: $viewName) { edges { node { id } } }
  }
}
"""
_PATIENCE = 60
_CONTENT = "content"
T = TypeVar("T")


class Published(NamedTuple):
    """Where things are, and whether the leaderboard differs from the one that was there."""

    changed: bool
    rows: int
    run: str
    report: str
    view: str

    def __str__(self) -> str:
        what = "published" if self.changed else "unchanged"
        return f"{counted(self.rows, 'row')} {what}\nreport: {self.report}\nview: {self.view}\nrun: {self.run}"


def publish(board: Board, *, project: str, entity: str | None = None, base_url: str | None = None) -> Published:
    """Bring ``board`` to W&B; a second call updates what the first one made and duplicates nothing.

    The run (job type ``leaderboard``) holds the rows as a table; the artifact ``leaderboard`` holds the files of
    ``write``, with the aliases ``latest`` and ``content-<hash>``: a new version exactly when the content is new. The
    report and the view are found by their title and rewritten whole.

    Raises:
        BadInput: no rows, no key, no wandb-workspaces, an invalid name.
        MachineFault: the server was not reached or refused.
    """
    if not board.rows:
        raise BadInput("there is no row to publish yet: no sweep has confirmed runs")
    check_name("project", project)
    check_name("entity", entity)
    _require_workspaces()
    with tempfile.TemporaryDirectory(prefix="kdbench-") as folder, client(Path(folder), base_url=base_url) as api:
        _hush()
        path = f"{entity or api.default_entity}/{project}"
        return _Publisher(api, path, Path(folder)).publish(board)


def _require_workspaces() -> None:
    try:
        import wandb_workspaces  # noqa: F401
    except ImportError:
        raise BadInput("a W&B report needs wandb-workspaces: pip install 'kdbench[reports]'") from None


def _reports() -> Any:
    import wandb_workspaces.reports.v2 as wr

    return wr


def _workspaces() -> Any:
    import wandb_workspaces.workspaces as ws

    return ws


def _hush() -> None:
    """No lines of the client's own about what was saved: ``Published`` says it."""
    import wandb

    wandb.termsetup(wandb.Settings(silent=True), None)


class _Publisher:
    """One call: its connection, its target, a folder to work in."""

    def __init__(self, api: Any, path: str, folder: Path) -> None:
        self._api, self._path, self._folder = api, path, folder
        self._entity, self._project = path.split("/")

    def publish(self, board: Board) -> Published:
        content = identify([table(board), text(board)])
        before = self._try("looked up", self._existing)
        changed = before is None or before.summary_metrics.get(_CONTENT) != content
        address = before.url if before is not None else ""
        if changed:
            address = self._try("sent", lambda: self._send(board, content, before.id if before is not None else None))
        report = self._try("written", lambda: self._report(board))
        view = self._try("saved", self._view)
        return Published(changed, len(board.rows), address, report, view)

    def _try(self, what: str, action: Callable[[], T]) -> T:
        with faults(f"the leaderboard could not be {what} in {self._path}"):
            return action()

    def _existing(self) -> Any:
        """The run of an earlier call, the oldest of several; None in a new project."""
        try:
            runs = list(self._api.runs(self._path, filters={"jobType": NAME}, lazy=False))
        except ValueError:  # no such project: the run makes it
            return None
        return next((run for run in runs if run.job_type == NAME), None)

    def _send(self, board: Board, content: str, known: str | None) -> str:
        """Table and artifact; ``content`` is noted last, so that its presence means that all of it arrived."""
        import wandb

        silence()
        mode = run_settings(self._folder, "online", **({"resume": "allow"} if known else {}))
        run = wandb.init(entity=self._entity, project=self._project, id=known, name=NAME, job_type=NAME, settings=mode)
        code = 1
        try:
            rows = records(board)
            cells = wandb.Table(list(rows[0]), [list(row.values()) for row in rows], allow_mixed_types=True)
            run.log({NAME: cells})
            artifact = wandb.Artifact(NAME, type=NAME, metadata={"rows": len(rows), _CONTENT: content})
            for path in write(board, self._folder / "files").values():
                artifact.add_file(str(path))
            run.log_artifact(artifact, aliases=["latest", f"{_CONTENT}-{content}"]).wait(_PATIENCE)
            run.summary.update({"rows": len(rows), _CONTENT: content})
            code = 0
        finally:
            run.finish(exit_code=code)
        return str(run.url)

    def _report(self, board: Board) -> str:
        wr = _reports()
        report = wr.Report(entity=self._entity, project=self._project, title=TITLE, width="fluid")
        rows = counted(len(board.rows), "row")
        report.description = f"{rows}; written by `kdbench leaderboard publish`, which rewrites it."
        found = [one for one in self._api.reports(self._path) if one.display_name == TITLE]
        report.id = min(found, key=lambda one: str(one.created_at)).id if found else ""
        report.blocks = [
            wr.TableOfContents(),
            wr.MarkdownBlock(text=text(board, runs=False)),
            wr.H2(text="The table, to sort and filter"),
            wr.PanelGrid(runsets=[self._runs("leaderboard", NAME)], panels=_table_panels(), hide_run_sets=True),
            wr.H2(text="Confirmed runs"),
            wr.PanelGrid(runsets=[self._runs("confirm", "confirm")], panels=_confirm_panels()),
            wr.H2(text="What the searches saw"),
            wr.PanelGrid(runsets=[self._runs("search", "search")], panels=_search_panels()),
        ]
        report.save()
        return str(report.url)

    def _runs(self, name: str, phase: str) -> Any:
        wr = _reports()
        return wr.Runset(entity=self._entity, project=self._project, name=name, filters=f"JobType = '{phase}'")

    def _view_id(self) -> str:
        """Id of the saved view of an earlier call, or empty.

        Asked for here because the library refuses to load a view that the W&B app has brought to a later format.
        """
        from wandb_workspaces._graphql import execute_graphql

        about = {"entity": self._entity, "project": self._project, "viewType": "project-view", "viewName": _VIEW}
        project = execute_graphql(self._api, _VIEW_QUERY, about).get("project") or {}
        edges = (project.get("allViews") or {}).get("edges") or []
        return str(edges[0]["node"]["id"]) if edges else ""

    def _view(self) -> str:
        ws = _workspaces()
        view = ws.Workspace(entity=self._entity, project=self._project)
        view._internal_name, view._internal_id = _VIEW, self._view_id()
        view.name = TITLE
        view.sections = [
            ws.Section(name="Leaderboard", panels=_table_panels(), is_open=True),
            ws.Section(name="Confirmed runs", panels=_confirm_panels(), is_open=True),
            ws.Section(name="Search", panels=_search_panels(), is_open=True),
        ]
        columns = ["run:displayName", "config:student.value", "config:method.value", "summary:params"]
        view.runset_settings = ws.RunsetSettings(
            filters="JobType in ['leaderboard', 'search', 'confirm']",
            pinned_columns=[*columns, "summary:test_acc", "summary:val_acc"],
        )
        view.save()
        return str(view.url)


def _table_panels() -> list[Any]:
    wr = _reports()
    return [wr.WeavePanelSummaryTable(table_name=NAME, layout=wr.Layout(w=24, h=14))]


def _confirm_panels() -> list[Any]:
    """Size against accuracy, and the runs side by side. Metrics by class: a bare name would mean a run's attribute."""
    wr = _reports()
    size, score = wr.SummaryMetric("params"), wr.SummaryMetric("test_acc")
    title = "Test accuracy against parameters"
    plot = wr.ScatterPlot(title=title, x=size, y=score, log_x=True, layout=wr.Layout(w=12, h=10))
    return [plot, wr.RunComparer(diff_only="split", layout=wr.Layout(x=12, w=12, h=10))]


def _search_panels() -> list[Any]:
    wr = _reports()
    metrics = {
        "T": wr.Config("temperature"),
        "alpha": wr.Config("alpha"),
        "parameters": wr.SummaryMetric("params"),
        "validation accuracy": wr.SummaryMetric("val_acc"),
    }
    columns = [
        wr.ParallelCoordinatesPlotColumn(metric=metric, display_name=name, log=name in ("T", "parameters") or None)
        for name, metric in metrics.items()
    ]
    return [wr.ParallelCoordinatesPlot(columns=columns, title="Search", layout=wr.Layout(w=24, h=10))]
