"""Judge of language models by tasks of lm-evaluation-harness: `python -m soup_judge.lm_eval --tokenizer DIR`.

A dataset is the name of a task, its samples are the task's documents, and its figures are the sums of those metrics
that the harness takes the mean of (`acc`: how many documents are answered right).
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lm_eval.api.metrics
import lm_eval.models.huggingface
import lm_eval.tasks
import numpy as np
import torch
from numpy.typing import NDArray

from soup_judge.answers import Metric, Sums, Survey
from soup_judge.data import digest_of
from soup_judge.errors import Refused
from soup_judge.judge import version_of
from soup_judge.schema import Dataset, Schema, listed
from soup_judge.server import serve
from soup_judge.tensors import Tensors
from soup_judge.torch import Arithmetic, add_arguments, arithmetic_of
from soup_judge.transformers.base import Tokenizer, TransformersJudge

SEED = 1234
"""Of which examples a prompt has: the harness's own."""


class HarnessTask(TransformersJudge):
    """`AutoModelForCausalLM` on a task of lm-evaluation-harness."""

    version = "1"
    auto = "AutoModelForCausalLM"

    def __init__(
        self,
        tokenizer: Path,
        *,
        include: Path | None = None,
        fewshot: int | None = None,
        max_length: int | None = None,
        arithmetic: Arithmetic | None = None,
    ) -> None:
        """`include`: folder with tasks of one's own; `fewshot`: examples in a prompt; None: as many as the task
        says."""
        super().__init__(arithmetic=arithmetic)
        self.tokenizer = Tokenizer(tokenizer, max_length)
        self.fewshot = fewshot
        self.manager = lm_eval.tasks.TaskManager(include_path=str(include) if include else None)
        self.configuration = {
            **self.configuration,
            **self.tokenizer.configuration,
            "lm-eval": version_of("lm_eval"),
            "include": digest_of(include) if include else None,
            "fewshot": fewshot,
        }

    def open(self, schema: Schema, datasets: Sequence[Dataset]) -> Survey:
        """Builds the model, and makes the requests of all tasks."""
        notes = self.prepare(schema)
        self._lm: Any = None
        self._batch_size = schema.batch_size
        figures: dict[str, bool] | None = None
        for dataset in datasets:
            self.progress(f"reading {dataset.name}")
            task = self._task(dataset)
            found, others = _means(task)
            if figures is not None and found != figures:
                raise Refused(
                    f"dataset {dataset.name}: the task {dataset.source} tells of {listed(found) or 'nothing'}, "
                    f"the first one of {listed(figures)}"
                )
            figures = found
            if others:
                notes.append(f"{dataset.name}: {listed(others)} are no means, and are left out")
            dataset.data = task
        names = figures or {}
        return Survey(
            samples=[len(dataset.data.eval_docs) for dataset in datasets],
            figures=[_figure(name) for name in names],
            metrics=[
                Metric(_figure(name), _figure(name), lower_is_better=not higher) for name, higher in names.items()
            ],
            notes=notes,
        )

    def load(self, tensors: Tensors) -> Any:
        """The tensors; with the first, what the harness wraps the model in."""
        weights = super().load(tensors)
        if self._lm is None:
            with self.binding.bound(weights):
                self._lm = lm_eval.models.huggingface.HFLM(
                    pretrained=self.module,
                    tokenizer=self.tokenizer.tokenizer,
                    batch_size=self._batch_size,
                    max_length=self.tokenizer.max_length,
                )
        return weights

    def judge(self, model: Any, dataset: Dataset, positions: NDArray[np.int64]) -> Sums:
        """The requests of these documents, and what the task makes of the answers."""
        task = dataset.data
        asked = positions.tolist()
        task.build_all_requests(samples=asked, tokenizer_name="")
        kinds: dict[str, list[Any]] = defaultdict(list)
        documents: dict[int, list[Any]] = defaultdict(list)
        for instance in task.instances:
            kinds[instance.request_type] += [instance] * (instance.repeats or 1)
            documents[instance.doc_id].append(instance)
        with self.binding.bound(model), torch.inference_mode():
            for kind, requests in kinds.items():
                self.progress(f"{len(requests)} requests of {len(asked)} documents")
                answers = getattr(self._lm, kind)(requests, disable_tqdm=True)
                for request, answer in zip(requests, answers, strict=True):
                    request.resps.append(answer)
        task.apply_filters()
        key = next(iter(task.instances[0].filtered_resps))
        names, _ = _means(task)
        sums = dict.fromkeys(names, 0.0)
        for place, document in task.doc_iterator(samples=asked):
            requests = sorted(documents[place], key=lambda instance: instance.idx)
            told = task.process_results(document, [request.filtered_resps[key] for request in requests])
            for name in names:
                sums[name] += float(told[name])
        return Sums({_figure(name): value if math.isfinite(value) else math.nan for name, value in sums.items()})

    def _task(self, dataset: Dataset) -> Any:
        try:
            tasks = lm_eval.tasks.get_task_dict([dataset.source], self.manager)
        except Exception as error:
            raise Refused(
                f"dataset {dataset.name}: the task {dataset.source}: {type(error).__name__}: {error}"
            ) from error
        task = tasks.get(dataset.source)
        if len(tasks) != 1 or task is None or isinstance(task, dict):
            raise Refused(
                f"dataset {dataset.name}: {dataset.source} is not one task but a group: name its tasks one by one"
            )
        if self.fewshot is not None:
            task.set_config(key="num_fewshot", value=self.fewshot)
        task.set_fewshot_seed(seed=SEED)
        if not _means(task)[0]:
            raise Refused(f"dataset {dataset.name}: no metric of the task {dataset.source} is a mean over documents")
        return task


def _means(task: Any) -> tuple[dict[str, bool], list[str]]:
    """Metrics that are means, with whether higher is better; and the others."""
    better = task.higher_is_better()
    means = {}
    others = []
    for name, aggregation in task.aggregation().items():
        if aggregation is lm_eval.api.metrics.mean:
            means[name] = bool(better.get(name, True))
        else:
            others.append(name)
    return means, others


def _figure(metric: str) -> str:
    return re.sub(r"[^a-z0-9_-]", "_", metric.lower())


def main(arguments: Sequence[str] | None = None) -> None:
    """Serves until told to end."""
    parser = argparse.ArgumentParser(prog="python -m soup_judge.lm_eval", description=(__doc__ or "").splitlines()[0])
    add_arguments(parser)
    parser.add_argument("--tokenizer", type=Path, required=True, metavar="DIR", help="folder of the tokenizer")
    parser.add_argument("--max-length", type=int, metavar="N", help="tokens of prompt and answer")
    parser.add_argument("--include", type=Path, metavar="DIR", help="folder with tasks of your own")
    parser.add_argument("--num-fewshot", type=int, metavar="N", help="examples in a prompt; else as the task says")
    options = parser.parse_args(arguments)
    judge = HarnessTask(
        options.tokenizer,
        include=options.include,
        fewshot=options.num_fewshot,
        max_length=options.max_length,
        arithmetic=arithmetic_of(options),
    )
    serve(judge, options.socket)


if __name__ == "__main__":
    main(sys.argv[1:])
