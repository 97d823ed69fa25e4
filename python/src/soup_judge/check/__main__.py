"""Whether a judge keeps what the protocol promises: `python -m soup_judge.check SOCKET`.

Asks a judge that serves already, whoever wrote it and in whatever language, what a worker would ask, and what a worker
never would. Prints one line a check; exits with 1 where one failed. Without `--weights` and `--source` there is little
to ask.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import grpc

from soup_judge.check.asking import Failed, Skipped
from soup_judge.check.suite import Suite
from soup_judge.client import Client
from soup_judge.errors import Refused


def checks(suite: Suite) -> Iterator[tuple[str, Callable[[], None]]]:
    """All checks of a suite, in the order in which they are written, with what each is about."""
    for name, method in vars(Suite).items():
        if name.startswith("check_"):
            yield method.__doc__.strip().splitlines()[0], getattr(suite, name)


def outcome(check: Callable[[], None]) -> tuple[str, str]:
    """Makes a check: "ok", "skip" or "FAIL", and why."""
    try:
        check()
    except Skipped as skipped:
        return "skip", str(skipped)
    except Failed as failed:
        return "FAIL", str(failed)
    except grpc.RpcError as error:
        return "FAIL", f"{error.code().name}: {error.details()}"
    return "ok", ""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = argparse.ArgumentParser(prog="python -m soup_judge.check", description=(__doc__ or "").splitlines()[0])
    found.add_argument("socket", type=Path, help="where the judge serves")
    found.add_argument("--source", action="append", default=[], metavar="DATASET", help="the validation set first")
    found.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="of all datasets")
    found.add_argument("--weights", type=Path, metavar="FILE", help="a soup: safetensors")
    found.add_argument("--config", type=Path, metavar="FILE", help="the pool's config.json")
    found.add_argument("--preprocessor", type=Path, metavar="FILE", help="the pool's preprocessor_config.json")
    found.add_argument("--batch-size", type=int, default=8, metavar="N", help="samples of a block (8)")
    found.add_argument("--samples", type=int, default=32, metavar="N", help="of a dataset, at most (32)")
    found.add_argument("--wait", type=float, default=60.0, metavar="SECONDS", help="until the judge serves (60)")
    found.add_argument("--timeout", type=float, default=600.0, metavar="SECONDS", help="of a call (600)")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Makes all checks; the exit status."""
    options = parser().parse_args(arguments)
    if options.batch_size < 1 or options.samples < 1:
        parser().error("--batch-size and --samples have to be at least 1")
    if any("=" not in each for each in options.option):
        parser().error("--option needs NAME=VALUE")
    counts = {"ok": 0, "FAIL": 0, "skip": 0}
    with tempfile.TemporaryDirectory() as folder, Client(options.socket, options.timeout) as client:
        try:
            suite = Suite(client, options, Path(folder))
        except (OSError, Refused) as error:
            parser().error(str(error))
        if not client.wait(options.wait):
            parser().error(f"nobody serves at {options.socket} within {options.wait:g} s")
        for what, check in checks(suite):
            verdict, why = outcome(check)
            counts[verdict] += 1
            print(f"{verdict:4} {what}{f': {why}' if why else ''}", flush=True)
    print(f"{counts['ok']} passed, {counts['FAIL']} failed, {counts['skip']} skipped")
    return 1 if counts["FAIL"] else 0


if __name__ == "__main__":
    sys.exit(main())
