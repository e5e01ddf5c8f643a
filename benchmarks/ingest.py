"""How fast `ingest_blobs` reads, against a bare download of the same blobs, and how much memory it takes.

In one run, against one embedded server, and each measurement a process of its own that pays for its own start:

- bare: `azure-storage-blob` downloads every blob with `download_blob(max_concurrency=n).readinto(nothing)`, with the
  best `n` of 1, 2, 4 and 8 (found for each size). The goal is set against the SDK's own client; beside it stands
  one with the chunk and read sizes of `blob_client`, which is faster: what parsing and writing cost shows against that.
- component: `components/ingest_blobs` as a step runs it, which downloads, hashes, parses, and writes Parquet.

The three are interleaved and repeated; the medians are compared. Peak memory is the child's `ru_maxrss`.

    python benchmarks/ingest.py [--sizes 100 500 2000] [--repeats 3] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any, cast

from measured import Measured, measure, say

from edgeml.storage import blob_client, server, synth, transfer

ROOT = Path(__file__).resolve().parents[1]
COMPONENT = ROOT / "components/ingest_blobs/ingest_blobs.py"
ROWS_PER_MB = 7_900
FILES = 4
CONCURRENCIES = (1, 2, 4, 8)
GOAL_RATIO = 0.60
GOAL_GROWTH = 1.20


class Nowhere:
    """A seekable sink that keeps nothing."""

    def __init__(self) -> None:
        self.place = 0

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.place

    def seek(self, place: int, _whence: int = 0) -> int:
        self.place = place
        return place

    def write(self, data: bytes) -> int:
        self.place += len(data)
        return len(data)


def bare(container: str, client: str, concurrency: int) -> None:
    """The body of a bare process: download every blob of the container into nothing."""
    if client == "tuned":
        blobs = blob_client.container(container)
    else:
        from azure.storage.blob import BlobServiceClient

        env = {name.removeprefix("EDGEML_STORAGE_").lower(): value for name, value in os.environ.items()}
        blobs = BlobServiceClient(
            env["account_url"],
            credential={"account_name": env["account_name"], "account_key": env["account_key"]},
            api_version=blob_client.API_VERSION,
            connection_verify=env["ca_bundle"],
        ).get_container_client(container)
    for blob in blobs.list_blobs():
        blobs.download_blob(blob.name, max_concurrency=concurrency).readinto(cast(Any, Nowhere()))


def measured(command: list[str], environment: dict[str, str]) -> Measured:
    with tempfile.NamedTemporaryFile() as log:
        return measure(command, ROOT, environment, Path(log.name))


def bare_command(container: str, client: str, concurrency: int) -> list[str]:
    return [sys.executable, __file__, "--bare", container, client, str(concurrency)]


def component_command(container: str, out: Path) -> list[str]:
    shutil.rmtree(out, ignore_errors=True)
    where = ["--table", str(out / "table"), "--manifest", str(out / "manifest.json")]
    return [sys.executable, str(COMPONENT), "--container", container, "--prefix", "/", *where]


def fill(work: Path, environment: dict[str, str], size: int) -> tuple[str, int]:
    """Make a table of about `size` MB and push it; returns its container and its bytes."""
    folder = work / "csv"
    paths = synth.write(folder, size * ROWS_PER_MB, files=FILES)
    container = f"size-{size}"
    transfer.push(blob_client.container(container, environment), transfer.sources([folder]))
    total = sum(path.stat().st_size for path in paths)
    shutil.rmtree(folder)
    return container, total


def run(sizes: list[int], repeats: int, work: Path) -> dict[str, object]:
    results: list[dict[str, Any]] = []
    with server.session(work / ".edgeml") as started:
        storage = server.environment(work / ".edgeml", started)
        # As a step finds it: blob_client beside the script.
        environment = {**os.environ, **storage, "PYTHONPATH": str(ROOT / "edgeml/storage")}
        for size in sizes:
            say(f"{size} MB: making and pushing")
            container, total = fill(work, storage, size)
            best: dict[str, int] = {}
            for client in ("default", "tuned"):
                tried = {n: measured(bare_command(container, client, n), environment).seconds for n in CONCURRENCIES}
                best[client] = min(tried, key=tried.__getitem__)
            times: dict[str, list[Measured]] = {"default": [], "tuned": [], "component": []}
            for turn in range(repeats):
                say(f"{size} MB: turn {turn + 1} of {repeats}")
                for client in ("default", "tuned"):
                    times[client].append(measured(bare_command(container, client, best[client]), environment))
                times["component"].append(measured(component_command(container, work / "out"), environment))
            speed = {name: total / 1e6 / statistics.median(m.seconds for m in all_) for name, all_ in times.items()}
            results.append(
                {
                    "bytes": total,
                    "max_concurrency": best,
                    "bare_default_mb_per_s": round(speed["default"], 1),
                    "bare_tuned_mb_per_s": round(speed["tuned"], 1),
                    "component_mb_per_s": round(speed["component"], 1),
                    "ratio_to_default": round(speed["component"] / speed["default"], 3),
                    "ratio_to_tuned": round(speed["component"] / speed["tuned"], 3),
                    "peak_mb": round(statistics.median(m.peak for m in times["component"]), 1),
                }
            )
    peaks = [float(result["peak_mb"]) for result in results]
    return {
        "cpus": os.cpu_count(),
        "repeats": repeats,
        "sizes": results,
        "peak_growth": round(max(peaks) / min(peaks), 3),
        "goals": {"ratio_to_default": GOAL_RATIO, "peak_growth": GOAL_GROWTH},
    }


def table(result: dict[str, object]) -> str:
    """The result as Markdown."""
    lines = [
        "| CSV MB | bare, defaults MB/s | bare, tuned MB/s | ingest_blobs MB/s | of defaults | of tuned | peak MB |",
        "|---:|---:|---:|---:|---:|---:|---:|",
    ]
    sizes = result["sizes"]
    assert isinstance(sizes, list)
    lines += [
        f"| {row['bytes'] / 1e6:.0f} | {row['bare_default_mb_per_s']} | {row['bare_tuned_mb_per_s']} "
        f"| {row['component_mb_per_s']} | {row['ratio_to_default']:.0%} | {row['ratio_to_tuned']:.0%} "
        f"| {row['peak_mb']:.0f} |"
        for row in sizes
    ]
    return "\n".join([*lines, "", f"Peak memory, largest to smallest: {result['peak_growth']}"])


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Measure ingest_blobs against a bare download.")
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 500, 2000], metavar="MB")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print JSON instead of Markdown")
    parser.add_argument("--bare", nargs=3, metavar=("CONTAINER", "CLIENT", "N"), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.bare:
        bare(args.bare[0], args.bare[1], int(args.bare[2]))
        return 0
    state = ROOT / ".edgeml"
    state.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=state, prefix="bench-") as folder:
        work = Path(folder)
        (work / ".edgeml").mkdir()
        for part in ("azurite", "node"):  # installed once, in the project
            (work / ".edgeml" / part).symlink_to(state / part)
        server.prepare(state)
        result = run(args.sizes, args.repeats, work)
    print(json.dumps(result, indent=2, sort_keys=True) if args.json else table(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
