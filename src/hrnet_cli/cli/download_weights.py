"""``hrnet download-weights``: list the known weights, fetch them, or take them from elsewhere."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from hrnet_cli import weights
from hrnet_cli.cli.console import err, out, say, say_error
from hrnet_cli.cli.options import QuietOption
from hrnet_cli.config import WeightsEntry
from hrnet_cli.download import Progress, file_sha256, hash_fits
from hrnet_cli.errors import InputError, UsageError, WeightsError
from hrnet_cli.scratch import cache_folder

# More patient than `detect`, which has something to fall back to.
ANSWER_S = 30.0
WEIGHTS_SUFFIXES = (".pth", ".pt", ".safetensors", ".tar")


@dataclass(frozen=True)
class _Report:
    """What became of each wanted entry: those written, those already there, those not got."""

    written: dict[str, Path]
    present: dict[str, Path]
    failed: dict[str, str]


def download_weights(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME",
            help="Weights to fetch, as --list shows them. Default: what detect uses by default.",
            show_default=False,
        ),
    ] = None,
    list_known: Annotated[
        bool, typer.Option("--list", help="List all known weights and fetch nothing.")
    ] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="Fetch all known weights, about 10 GB.")
    ] = False,
    origin: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="FILE|DIR|URL",
            help="Take the files from here instead of the internet: a file, a folder that is "
            "searched, or the base URL of a mirror. Hashes are checked all the same.",
            show_default=False,
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Fetch again what is already there.")
    ] = False,
    quiet: QuietOption = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the list, or what was done, as JSON on stdout.")
    ] = False,
) -> None:
    """Fetch weights into the cache folder, checked by their hash.

    Broken downloads are resumed. Proxies are taken from HTTPS_PROXY; HRNET_HOME moves the cache.

    \b
    Examples:
      hrnet download-weights hrnet-w48 yolo26m
      hrnet download-weights hrnet-w32 --from /media/usb/weights
    """  # noqa: D301 - click reads \b: keep these lines apart
    if list_known and (everything or overwrite or origin is not None):
        raise UsageError("--list fetches nothing: it goes without --all, --from and --overwrite")
    if everything and names:
        raise UsageError(f"--all and the name '{names[0]}' were both given, expected one of them")
    named = list(dict.fromkeys(weights.find_entry(name).name for name in names or ()))
    known = weights.load_weights_list()
    entries = [known[name] for name in named]
    if list_known:
        _print_list(entries or list(known.values()), as_json=as_json, quiet=quiet)
        return
    if everything:
        entries = [entry for entry in known.values() if not entry.file]
    report = _provide(entries, origin, overwrite=overwrite, quiet=quiet)
    if as_json:
        _print_json({key: _plain(value) for key, value in asdict(report).items()})
    _conclude(report, quiet=quiet)


def _provide(
    entries: list[WeightsEntry], origin: str | None, *, overwrite: bool, quiet: bool
) -> _Report:
    """Bring the entries into the cache; no entries means what the origin has, or the defaults."""
    if origin is None or urlsplit(origin).scheme in ("http", "https"):
        defaults = (weights.DEFAULT_MODEL, weights.DEFAULT_DETECTOR)
        wanted = entries or [weights.find_entry(name) for name in defaults]

        def get(entry: WeightsEntry) -> Path:
            return _download(entry, origin or "", overwrite=overwrite, quiet=quiet)

        return _each(wanted, get, overwrite=overwrite)
    path = Path(origin)
    if path.is_dir():
        sources = _find_in_folder(path, entries)
    elif path.is_file():
        sources = _match_file(path, entries)
    else:
        raise InputError(
            f"--from is '{origin}', expected a file, a folder or an http(s) URL",
            hint="check the path: nothing is there",
        )
    wanted = entries or [weights.find_entry(name) for name in sources]

    def copy(entry: WeightsEntry) -> Path:
        if entry.name not in sources:
            raise WeightsError(f"no file in {path} is '{entry.name}' ({entry.file_name})")
        return weights.install_file(entry, sources[entry.name])

    return _each(wanted, copy, overwrite=overwrite)


def _each(
    entries: list[WeightsEntry], get: Callable[[WeightsEntry], Path], *, overwrite: bool
) -> _Report:
    """Get every entry that is not there; one that cannot be got does not stop the others."""
    report = _Report({}, {}, {})
    for entry in entries:
        found = None if overwrite and not entry.file else weights.cached_path(entry)
        if found is not None:
            report.present[entry.name] = found
            continue
        try:
            report.written[entry.name] = get(entry)
        except (WeightsError, InputError) as error:
            if len(entries) == 1:
                raise
            say_error(f"{entry.name}: {error.message}", error.hint)
            report.failed[entry.name] = error.message
    return report


def _download(entry: WeightsEntry, mirror: str, *, overwrite: bool, quiet: bool) -> Path:
    host = urlsplit(mirror or next(iter(entry.urls), "")).hostname
    with _progress(f"{entry.name} from {host}", quiet=quiet) as on_progress:
        return weights.fetch(
            entry,
            deadline_s=ANSWER_S,
            on_progress=on_progress,
            overwrite=overwrite,
            mirror=mirror,
        )


@contextmanager
def _progress(title: str, *, quiet: bool) -> Iterator[Progress | None]:
    """Show a bar on a terminal, one line where stderr is a file, nothing when quiet."""
    if quiet or not err().is_terminal:
        if not quiet:
            say(f"fetching {title}")
        yield None
        return
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    speed = (TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, *speed, console=err(), transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _match_file(path: Path, entries: list[WeightsEntry]) -> dict[str, Path]:
    """Return the one name a file goes by: the wanted one, or what its hash says it is."""
    if len(entries) > 1:
        raise UsageError(
            f"--from names one file and {len(entries)} weights are wanted, expected one",
            hint="give a folder with --from, or one name",
        )
    if entries:
        return {entries[0].name: path}
    actual = file_sha256(path)
    for entry in weights.identify(actual):
        return {entry.name: path}
    raise WeightsError(
        f"{path} with sha256 {actual} is none of the {len(weights.load_weights_list())} files"
        " of weights.toml",
        hint=f"to use it all the same, give its path: hrnet detect --model {path}",
    )


def _find_in_folder(folder: Path, entries: list[WeightsEntry]) -> dict[str, Path]:
    """Return the wanted entries' files in a folder: those of the right name, else by hash.

    A file of the right name is returned even when its hash is wrong, so that copying it says so.
    """
    candidates = entries or [e for e in weights.load_weights_list().values() if not e.file]
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    by_name = {path.name: path for path in files}
    sources = {e.name: by_name[e.file_name] for e in candidates if e.file_name in by_name}
    named = set(sources.values())
    for path in files:
        if path in named or path.suffix not in WEIGHTS_SUFFIXES:
            continue
        if len(sources) == len(candidates):
            break
        actual = file_sha256(path)
        for entry in candidates:
            if entry.name not in sources and hash_fits(actual, entry.sha256):
                sources[entry.name] = path
    if not sources:
        raise WeightsError(
            f"none of the {len(files)} files in {folder} is among the wanted weights",
            hint="`hrnet download-weights --list --json` shows the file names and hashes",
        )
    return sources


def _conclude(report: _Report, *, quiet: bool) -> None:
    """Say what was written and where; raise when something is missing."""
    if not quiet:
        say(_last_line(report))
    if report.failed:
        total = len(report.written) + len(report.present) + len(report.failed)
        raise WeightsError(
            f"{len(report.failed)} of {total} weights are missing: {', '.join(report.failed)}",
            hint="run the command again: what is there is not fetched twice",
        )


def _last_line(report: _Report) -> str:
    if len(report.written) + len(report.present) == 1:
        if report.written:
            return "wrote {}: {}".format(*next(iter(report.written.items())))
        return "{} is already there: {}".format(*next(iter(report.present.items())))
    size = sum(path.stat().st_size for path in report.written.values())
    folder = cache_folder() / "weights"
    there = f"; {len(report.present)} already there" if report.present else ""
    return f"wrote {len(report.written)} files ({size / 1e6:.1f} MB) to {folder}{there}"


def _print_list(entries: list[WeightsEntry], *, as_json: bool, quiet: bool) -> None:
    if as_json:
        _print_json([_as_record(entry) for entry in entries])
        return
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    titles = ("name", "kind", "MB", "AP", "licence", "here")
    rows = [_row(entry) for entry in entries]
    table = Table(box=SIMPLE_HEAD, padding=0, show_edge=False)
    for title, cells in zip(titles, zip(titles, *rows, strict=True), strict=True):
        # Names are copied from here: a narrow terminal or a pipe must not shorten them.
        width = max(map(len, cells))
        numbers = title in ("MB", "AP")
        table.add_column(title, min_width=width, justify="right" if numbers else "left")
    for row in rows:
        table.add_row(*row)
    out().print(table, soft_wrap=False, crop=False)
    if not quiet:
        for line in _notes(entries):
            say(line)


def _row(entry: WeightsEntry) -> tuple[str, ...]:
    size = "-" if entry.size_bytes is None else f"{entry.size_bytes / 1e6:.1f}"
    here = "yes" if weights.is_stored(entry) else "no"
    return entry.name, entry.kind, size, _ap(entry), entry.licence, here


def _notes(entries: list[WeightsEntry]) -> Iterator[str]:
    """Yield what the table has no room for."""
    for entry in entries:
        for alias in entry.aliases:
            yield f"{alias} is {entry.name}"
    yield "here: whether the file is on this machine; MB: where the length was published"
    yield "AP counts what `metric` says in --list --json; * was measured by this project"
    yield "licences are those of the releasing repositories; `trained_on` names the data behind"


def _as_record(entry: WeightsEntry) -> dict[str, object]:
    stored = weights.is_stored(entry)
    path = str(weights.stored_path(entry)) if stored else None
    return {**asdict(entry), "file_name": entry.file_name, "downloaded": stored, "path": path}


def _plain(outcomes: dict[str, Path | str]) -> list[dict[str, str]]:
    """Return one record per name, with its path, or with the error of a failed one."""
    return [
        {"name": name, "path" if isinstance(value, Path) else "error": str(value)}
        for name, value in outcomes.items()
    ]


def _print_json(value: object) -> None:
    out().print(json.dumps(value, indent=2, ensure_ascii=False), markup=False, soft_wrap=True)


def _ap(entry: WeightsEntry) -> str:
    if entry.published_ap is not None:
        return f"{entry.published_ap:.3f}"
    return "-" if entry.measured_ap is None else f"{entry.measured_ap:.3f}*"
