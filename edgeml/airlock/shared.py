"""Large work on two cores: threads of Python wait for one another, so a copy of this process takes its share.

The copy (fork) has all that the work needs already. Both take the next job from one queue; what the copy found comes
back as plain bytes in memory. It only saves time: what it does not bring back, for whatever reason, is done here.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

Found = TypeVar("Found")
Buffers = Sequence[bytes | memoryview]

LEAST = 1 << 20  # bytes of text from which on a copy pays
_SIZE = 8  # bytes of a number in what comes back, of which each part begins at a multiple
_alone = not hasattr(os, "fork") or not hasattr(os, "memfd_create")


def shared(
    jobs: int,
    work: Callable[[int], Found],
    packed: Callable[[Found], Buffers],
    unpacked: Callable[[Buffers], Found],
    size: int,
) -> list[Found]:
    """What `work` finds in each of so many jobs, in order; `size` is how many bytes all of them go through.

    `unpacked` makes of the bytes that `packed` gives what they were made of. An error of `work` is raised here.
    """
    if _alone or jobs < 2 or size < LEAST or len(os.sched_getaffinity(0)) < 2:
        return [work(job) for job in range(jobs)]
    with _queue(jobs) as queue, _copy(queue, work, packed) as theirs:
        found = {job: work(job) for job in _jobs(queue)}
        found |= {job: unpacked(buffers) for job, buffers in theirs()}
    return [found[job] if job in found else work(job) for job in range(jobs)]


@contextmanager
def _queue(jobs: int) -> Iterator[int]:
    """A pipe that holds the number of every job and no more."""
    reading, writing = os.pipe()
    try:
        os.set_blocking(writing, False)  # of more jobs than it holds the others are done here at last
        for job in range(min(jobs, 4096)):
            os.write(writing, job.to_bytes(_SIZE, "little"))
    finally:
        os.close(writing)
    try:
        yield reading
    finally:
        os.close(reading)


def _jobs(queue: int) -> Iterator[int]:
    while number := os.read(queue, _SIZE):
        yield int.from_bytes(number, "little")


@contextmanager
def _copy(
    queue: int, work: Callable[[int], Found], packed: Callable[[Found], Buffers]
) -> Iterator[Callable[[], Iterator[tuple[int, Buffers]]]]:
    """A copy of this process at work; what it found is asked for once the queue is empty."""
    memory = os.memfd_create("edgeml")
    copy: int | None = None
    try:
        copy = _forked()
        if copy == 0:
            _work(queue, memory, work, packed)

        def theirs() -> Iterator[tuple[int, Buffers]]:
            nonlocal copy
            if copy is None:
                return
            _, status = os.waitpid(copy, 0)
            copy = None
            if status == 0:
                yield from _read(memory)

        yield theirs
    finally:
        if copy:
            os.kill(copy, signal.SIGKILL)
            os.waitpid(copy, 0)
        os.close(memory)


def _forked() -> int | None:
    """The copy's process, 0 in the copy itself; None where there may be no more processes."""
    try:
        return os.fork()
    except OSError:
        return None


def _work(queue: int, memory: int, work: Callable[[int], Found], packed: Callable[[Found], Buffers]) -> None:
    """In the copy: do jobs, and leave without anything else that the process would do at its end."""
    global _alone
    status = 1
    try:
        _alone = True
        for job in _jobs(queue):
            parts = [memoryview(part) for part in packed(work(job))]
            head = [job, len(parts), *(len(part) for part in parts)]
            _write(memory, memoryview(b"".join(number.to_bytes(_SIZE, "little") for number in head)))
            for part in parts:
                _write(memory, part)
                _write(memory, memoryview(bytes(-len(part) % _SIZE)))
        status = 0
    finally:
        os._exit(status)


def _write(memory: int, rest: memoryview) -> None:
    while rest:
        rest = rest[os.write(memory, rest) :]


def _read(memory: int) -> Iterator[tuple[int, Buffers]]:
    import mmap

    size = os.fstat(memory).st_size
    if not size:
        return
    data = memoryview(mmap.mmap(memory, size, mmap.MAP_SHARED | mmap.MAP_POPULATE, mmap.PROT_READ))
    at = 0

    def number() -> int:
        nonlocal at
        at += _SIZE
        return int.from_bytes(data[at - _SIZE : at], "little")

    while at < size:
        job, parts = number(), []
        for length in [number() for _ in range(number())]:
            parts.append(data[at : at + length])
            at += length + -length % _SIZE
        yield job, parts
