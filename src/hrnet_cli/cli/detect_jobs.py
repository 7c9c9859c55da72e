"""``hrnet detect --jobs`` and ``--devices``: processes of this machine that share the sources."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING

import typer

from hrnet_cli.cli import console
from hrnet_cli.cli.detect_options import DetectOptions
from hrnet_cli.device import processors
from hrnet_cli.errors import ExitCode
from hrnet_cli.merging import merge, remove_marks
from hrnet_cli.stopping import StopRequest

if TYPE_CHECKING:
    from hrnet_cli.sources.plan import SourcePlan

# How often the processes are looked after.
_LOOK_S = 0.2
# What libraries beside the engines go by; these are told --threads.
_THREADS = "OMP_NUM_THREADS"
_MADE_PROCESSES = ("--jobs", "--devices")


def run_jobs(plan: "SourcePlan", options: DetectOptions) -> None:
    """Start the processes, wait for all, and join the records of photos.

    Raises:
        typer.Exit: With the gravest exit code of the processes, unless all ended well.
        KeyboardInterrupt: After a signal, when all processes have saved and ended.
    """
    cards = options.video.cards
    count = min(len(cards) or options.video.jobs, len(plan.photos) + len(plan.videos))
    environment = dict(os.environ)
    # Each gets its share of the processors, or they would wait for each other.
    threads = options.threads or max(1, processors() // count)
    environment.setdefault(_THREADS, str(threads))
    more = [] if options.threads else ["--threads", str(threads)]
    more += ["--device", "cuda"] if cards else []
    if not options.quiet:
        where = f" on GPU {', '.join(str(card) for card in cards[:count])}" if cards else ""
        noun = "process" if count == 1 else "processes"
        console.say(
            f"{count} {noun}{where}, {threads} {'thread' if threads == 1 else 'threads'} each"
        )
    with StopRequest() as stop:
        jobs = [
            subprocess.Popen(
                [
                    *(sys.executable, "-m", "hrnet_cli"),
                    *_part_words(sys.argv[1:], f"{number}/{count}", more),
                ],
                env=environment | _only(cards, number - 1),
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
            for number in range(1, count + 1)
        ]
        # Bars of several processes would draw over each other: without a terminal they say lines.
        relays = [
            threading.Thread(target=_relay, args=(job.stderr, number), daemon=True)
            for number, job in enumerate(jobs, start=1)
        ]
        for relay in relays:
            relay.start()
        _wait(jobs, stop)
        for relay in relays:
            relay.join()
    stop.check()
    # A process that was killed has a negative code.
    worst = max(job.returncode if job.returncode >= 0 else int(ExitCode.BUG) for job in jobs)
    if options.folder is not None and worst in (ExitCode.OK, ExitCode.INPUT):
        folder = Path(options.folder)
        if plan.photos:
            merge([folder], folder, overwrite=options.overwrite or options.video.resume)
        remove_marks(folder)
    if worst:
        raise typer.Exit(worst)


def _relay(stream: IO[bytes] | None, number: int) -> None:
    """Say what a process says, line by line, with its number in front."""
    for line in stream or ():
        text = line.decode(errors="replace").rstrip("\n")
        console.say(text, label=str(number), style="dim")


def _wait(jobs: list[subprocess.Popen[bytes]], stop: StopRequest) -> None:
    """Wait for all processes, and pass on a request to stop; at a second one none is left."""
    told = False
    try:
        for job in jobs:
            while job.poll() is None:
                time.sleep(_LOOK_S)
                if stop.requested and not told:
                    told = True
                    for each in jobs:
                        each.send_signal(signal.SIGTERM)
    except BaseException:
        for job in jobs:
            job.kill()
            job.wait()
        raise


def _only(cards: tuple[int, ...], index: int) -> dict[str, str]:
    """Return the environment of a process that sees no other GPU than its own."""
    return {"CUDA_VISIBLE_DEVICES": str(cards[index])} if cards else {}


def _part_words(words: list[str], part: str, more: list[str]) -> list[str]:
    """Return the words of a command line with ``--shard`` in place of what made processes.

    Args:
        words: As given.
        part: Number of the process and how many there are.
        more: Words that it is told besides.
    """
    command, *rest = words
    kept = [command, "--shard", part, *more]
    skip = False
    for number, word in enumerate(rest):
        if word == "--":  # only sources follow
            return kept + rest[number:]
        if not skip and word.split("=")[0] not in _MADE_PROCESSES:
            kept.append(word)
        skip = not skip and word in _MADE_PROCESSES
    return kept
