"""Fetch one file over HTTP, and let it have its name only when its hash is right.

Everything of this package that touches the network is here. A transfer writes ``NAME.part``
beside the target, under a lock, and goes on where an earlier one broke off; the finished part is
hashed from disk and renamed. So a file with the target's name is always complete.
"""

import errno
import hashlib
import logging
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hrnet_cli.errors import InputError, OutputError, WeightsError

if TYPE_CHECKING:
    from requests import RequestException, Response

log = logging.getLogger(__name__)

ANSWER_S = 8.0  # for all mirrors together to send a first byte
STALL_S = 30.0  # without a byte in the middle of a transfer
CONNECTIONS = 3  # to one mirror, each going on where the last one broke off
CHUNK_BYTES = 1 << 16
LOCK_POLL_S = 0.1

Progress = Callable[[int, int | None], None]


class UnreachableError(WeightsError):
    """No mirror sent the file: no network, no answer in time, or it is not there any more."""


@dataclass(frozen=True)
class _Wanted:
    target: Path
    sha256: str
    size_bytes: int | None
    on_progress: Progress | None

    @property
    def part(self) -> Path:
        return _part_of(self.target)


@dataclass
class _Patience:
    """Seconds left for mirrors that send nothing; the first bytes of the file refill it."""

    limit_s: float
    left_s: float
    mirrors_left: int

    def share_s(self) -> float:
        return max(self.left_s / max(self.mirrors_left, 1), 0.05)


class _MirrorFault(Exception):  # noqa: N818 - never leaves this module
    """Why one mirror did not do.

    Args:
        reason: Said after the mirror's address.
        wrong: The mirror answered, with another file than the expected one.
        broken: The transfer broke off; a new connection may go on.
    """

    def __init__(self, reason: str, *, wrong: bool = False, broken: bool = False) -> None:
        super().__init__(reason)
        self.wrong = wrong
        self.broken = broken


def download(
    urls: Sequence[str],
    target: Path,
    *,
    sha256: str,
    size_bytes: int | None = None,
    on_progress: Progress | None = None,
    deadline_s: float = ANSWER_S,
) -> Path:
    """Fetch a file from the first mirror that has it and return its path.

    The transfer resumes an earlier ``.part`` where the server allows ranges and starts again where
    it does not. Proxies are taken from the environment. Ctrl-C keeps the ``.part``.

    Args:
        urls: Mirrors, tried in order; http or https. An https mirror may not redirect to http.
        target: Path of the finished file; its folder is made. An existing file is replaced.
        sha256: Full hash of the file, or its first 8 hex digits.
        size_bytes: Length of the file; a mirror that announces another one is passed over.
        on_progress: Called with the bytes so far and the total (None when unknown).
        deadline_s: Seconds until the first byte, all mirrors together; the transfer itself may
            take any time as long as bytes arrive every `STALL_S` seconds.

    Raises:
        UnreachableError: No mirror sent the file.
        WeightsError: A mirror sent something else; names address, expected and actual hash.
        OutputError: No space, or no permission to write.
    """
    wanted = _Wanted(target, sha256, size_bytes, on_progress)
    with _locked(target, patience_s=deadline_s) as waited:
        if waited and target.is_file() and hash_fits(file_sha256(target), sha256):
            return target  # The process we waited for has fetched it.
        _fetch(list(urls), wanted, deadline_s)
    return target


def copy_verified(source: Path, target: Path, *, sha256: str) -> Path:
    """Copy a local file beside the others, with the same checks as a download.

    Raises:
        InputError: The source cannot be read.
        WeightsError: It has another hash.
        OutputError: No space, or no permission to write.
    """
    with _locked(target, patience_s=STALL_S):
        part = _part_of(target)
        try:
            _save(_local_chunks(source), part)
            actual = file_sha256(part)
            if not hash_fits(actual, sha256):
                raise WeightsError(
                    f"{source} has sha256 {actual}, expected {sha256}",
                    hint="the file is damaged or another one; copy it again",
                )
            _finish(part, target)
        finally:
            part.unlink(missing_ok=True)
    return target


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file as 64 hex digits.

    Raises:
        InputError: The file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error


def hash_fits(actual: str, expected: str) -> bool:
    """Return whether a full hash is the expected one, given whole or as its first 8 digits."""
    return len(expected) in (8, 64) and actual.startswith(expected)


def _fetch(urls: list[str], wanted: _Wanted, deadline_s: float) -> None:
    """Put the right file at the target, or raise with what each mirror did."""
    if wanted.part.is_file() and hash_fits(file_sha256(wanted.part), wanted.sha256):
        _finish(wanted.part, wanted.target)
        return
    patience = _Patience(deadline_s, deadline_s, len(urls))
    faults: list[tuple[str, _MirrorFault]] = []
    for url in urls:
        try:
            _fetch_intact(url, wanted, patience)
        except _MirrorFault as fault:
            log.info("%s: %s", url, fault)
            faults.append((url, fault))
            patience.mirrors_left -= 1
        else:
            _finish(wanted.part, wanted.target)
            return
    raise _all_failed(wanted, faults)


def _all_failed(wanted: _Wanted, faults: list[tuple[str, _MirrorFault]]) -> WeightsError:
    reasons = "; ".join(f"{url}: {fault}" for url, fault in faults)
    message = f"{wanted.target.name} was not fetched: {reasons}"
    by_hand = "bring the file from elsewhere and run `hrnet download-weights --from FILE`"
    if any(fault.wrong for _, fault in faults):
        return WeightsError(message, hint=f"the file was replaced or damaged there; {by_hand}")
    if wanted.part.exists():
        return UnreachableError(message, hint="run the command again: it goes on where it stopped")
    return UnreachableError(message, hint=f"check the network and HTTPS_PROXY, or {by_hand}")


def _fetch_intact(url: str, wanted: _Wanted, patience: _Patience) -> None:
    """Complete the part from one mirror and check its hash.

    A resumed part may owe its first bytes to another mirror or another day; when the sum of both
    is wrong, the mirror gets a second chance from the first byte.
    """
    while True:
        resumed = _size(wanted.part) > 0
        _transfer(url, wanted, patience)
        actual = file_sha256(wanted.part)
        if hash_fits(actual, wanted.sha256):
            return
        wanted.part.unlink()
        if not resumed:
            raise _MirrorFault(f"sha256 is {actual}, expected {wanted.sha256}", wrong=True)


def _transfer(url: str, wanted: _Wanted, patience: _Patience) -> None:
    """Fetch what is missing of the part, with new connections while they make progress."""
    etag = ""
    for connection in range(1, CONNECTIONS + 1):
        before = _size(wanted.part)
        try:
            response, first = _ask(url, before, etag, patience)
            try:
                offset, total = _check_answer(response, before, etag, wanted)
                etag = response.headers.get("ETag", "")
                patience.left_s = patience.limit_s
                _receive(response, first, offset, total, wanted)
            finally:
                response.close()
        except _MirrorFault as fault:
            if not fault.broken or connection == CONNECTIONS or _size(wanted.part) == before:
                raise
        else:
            return


def _ask(url: str, offset: int, etag: str, patience: _Patience) -> "tuple[Response, bytes]":
    """Return the answer of a mirror and its first byte, within its share of the patience.

    The request runs in a thread of its own because the system's name look-up cannot be given a
    time limit; a request that comes back too late is closed.
    """
    headers = {"User-Agent": "hrnet-cli", "Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
        if etag and not etag.startswith("W/"):
            headers["If-Range"] = etag
    wait_s = patience.share_s()
    answer: Future[tuple[Response, bytes]] = Future()
    started = time.monotonic()
    threading.Thread(target=_request_into, args=(answer, url, headers, wait_s), daemon=True).start()
    try:
        return answer.result(wait_s)
    except TimeoutError:
        answer.add_done_callback(_close_late)
        raise _MirrorFault(f"no answer within {wait_s:.0f} s") from None
    finally:
        patience.left_s -= time.monotonic() - started


def _request_into(
    answer: "Future[tuple[Response, bytes]]", url: str, headers: dict[str, str], wait_s: float
) -> None:
    """Settle ``answer`` with the response and its first byte, or with what went wrong."""
    try:
        import requests

        try:
            response = requests.get(url, headers=headers, stream=True, timeout=(wait_s, STALL_S))
            first = next(response.iter_content(1), b"")
        except requests.RequestException as error:
            raise _MirrorFault(_plain_reason(error)) from error
    except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
        answer.set_exception(error)
    else:
        answer.set_result((response, first))


def _close_late(answer: "Future[tuple[Response, bytes]]") -> None:
    if answer.exception() is None:
        answer.result()[0].close()


def _plain_reason(error: "RequestException") -> str:
    """Return the innermost reason of a network error, without urllib3's wrapping."""
    inner = error.args[0] if error.args else error
    text = str(getattr(inner, "reason", None) or inner)
    text = re.sub(r"^.*?(?:Connection\w*|Error)?\([^)]*\): ", "", text)
    text = re.sub(r"^.*: \[Errno -?\d+\] ", "", text)
    # The wrappers' closing brackets, without their opening ones.
    surplus = max(0, text.count(")") - text.count("("))
    return (text[: len(text) - surplus] if text.endswith(")" * surplus) else text) or type(
        error
    ).__name__


def _check_answer(
    response: "Response", offset: int, etag: str, wanted: _Wanted
) -> tuple[int, int | None]:
    """Return the byte at which the body starts and the length of the whole file, if told."""
    _check_redirects(response)
    if response.status_code == 416:
        wanted.part.unlink(missing_ok=True)
        raise _MirrorFault(f"has no byte {offset}: the file there is shorter", broken=True)
    if response.status_code not in (200, 206):
        raise _MirrorFault(f"HTTP {response.status_code} {response.reason}")
    if response.headers.get("Content-Type", "").startswith("text/html"):
        raise _MirrorFault("answers with a web page instead of the file")
    start, total = _extent(response, offset)
    if start and etag and response.headers.get("ETag", "") != etag:
        wanted.part.unlink(missing_ok=True)
        raise _MirrorFault("the file changed there during the transfer", broken=True)
    if total is not None and wanted.size_bytes not in (None, total):
        raise _MirrorFault(f"has {total} bytes, expected {wanted.size_bytes}", wrong=True)
    return start, total


def _check_redirects(response: "Response") -> None:
    hops = [hop.url for hop in (*response.history, response)]
    if hops[0].startswith("https://") and not all(hop.startswith("https://") for hop in hops):
        raise _MirrorFault("redirects from https to an address without encryption")


def _extent(response: "Response", offset: int) -> tuple[int, int | None]:
    """Return first byte and total length from the headers of a 200 or 206 answer."""
    if response.status_code == 200:
        length = response.headers.get("Content-Length", "")
        return 0, int(length) if length.isdigit() else None
    told = response.headers.get("Content-Range", "")
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", told)
    if match is None or int(match[1]) != offset:
        raise _MirrorFault(f"was asked for the bytes from {offset} and sent '{told}'")
    return offset, None if match[2] == "*" else int(match[2])


def _receive(
    response: "Response", first: bytes, offset: int, total: int | None, wanted: _Wanted
) -> None:
    """Write the body behind byte ``offset`` of the part."""
    _check_space(wanted.target, total, offset)

    def report(done: int) -> None:
        if wanted.on_progress is not None:
            wanted.on_progress(done, total)

    report(offset)
    _save(_remote_chunks(response, first), wanted.part, offset=offset, on_bytes=report)
    size = _size(wanted.part)
    if total is not None and size != total:
        if size > total:
            wanted.part.unlink()
        raise _MirrorFault(f"sent {size} of {total} bytes", broken=True)


def _remote_chunks(response: "Response", first: bytes) -> Iterator[bytes]:
    import requests

    yield first
    try:
        yield from response.iter_content(CHUNK_BYTES)
    except requests.RequestException as error:
        raise _MirrorFault(f"broke off: {_plain_reason(error)}", broken=True) from error


def _local_chunks(source: Path) -> Iterator[bytes]:
    try:
        with source.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk
    except OSError as error:
        raise InputError(f"cannot read {source}: {error.strerror}") from error


def _save(
    chunks: Iterable[bytes],
    part: Path,
    *,
    offset: int = 0,
    on_bytes: Callable[[int], None] | None = None,
) -> None:
    """Write chunks behind byte ``offset`` of the part, and what was written survives a crash.

    A part that could not be written is removed: on a full disk its space is wanted elsewhere.
    """
    done = offset
    try:
        with _output_errors(part), part.open("ab" if offset else "wb") as file:
            for chunk in chunks:
                file.write(chunk)
                done += len(chunk)
                if on_bytes is not None:
                    on_bytes(done)
            file.flush()
            os.fsync(file.fileno())
    except OutputError:
        with suppress(OSError):
            part.unlink()
        raise


def _finish(part: Path, target: Path) -> None:
    with _output_errors(target):
        part.replace(target)


def _check_space(target: Path, total: int | None, offset: int) -> None:
    free = shutil.disk_usage(target.parent).free
    if total is not None and total - offset > free:
        raise OutputError(
            f"no space for {target}: {total - offset} bytes to fetch, {free} bytes free",
            hint="free some space, or let HRNET_HOME name a folder on another disk",
        )


@contextmanager
def _output_errors(path: Path) -> Iterator[None]:
    """Turn what the file system says into an OutputError with advice."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutputError(
                f"no space left to write {path}",
                hint="free some space, or let HRNET_HOME name a folder on another disk",
            ) from error
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}",
            hint="let HRNET_HOME name a folder you may write to",
        ) from error


def _part_of(target: Path) -> Path:
    return target.with_name(target.name + ".part")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


@contextmanager
def _locked(target: Path, *, patience_s: float) -> Iterator[bool]:
    """Be the only process that writes the target; gives whether another one had to be waited for.

    Waits as long as the other process makes progress. The system gives the lock back when a
    process dies, so a lock file left behind does no harm.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(target.with_name(target.name + ".lock"), timeout=LOCK_POLL_S, mode=0o666)
    part = _part_of(target)
    waited = False
    seen, since = -1, time.monotonic()
    with _output_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        while not lock.is_locked:
            try:
                lock.acquire()
            except Timeout:
                waited = True
                if (size := _size(part)) != seen:
                    seen, since = size, time.monotonic()
                if time.monotonic() - since > patience_s:
                    raise UnreachableError(
                        f"another process is fetching {target.name} and got nothing for"
                        f" {patience_s:.0f} s",
                        hint="end that process, or wait for it",
                    ) from None
    try:
        yield waited
    finally:
        # Before the lock is given back, so that nobody waits on a file without a name; Windows
        # refuses to remove an open file.
        with suppress(OSError):
            Path(lock.lock_file).unlink()
        lock.release()
