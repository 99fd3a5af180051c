"""The weights that ship (:mod:`adatosk.shipped`): copied from the runs that made them, with scores and a model card."""

import filecmp
import shutil
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from adatosk.config import RunConfig
from adatosk.experiments.runs import headline_configs
from adatosk.manifests import manifest_of
from adatosk.shipped import FILES, FOLDERS, PROFILE
from adatosk.training.run_results import RunResults
from adatosk.utils.files import replacing, write_text
from adatosk.utils.provenance import read_metrics
from adatosk.workspace import Run

CARD = "README.md"


def ship(published: Path, outputs: Path) -> list[Path]:
    """Copy the pair's weights to ``results/demo/weights``, unless those there are the published scores' already.

    Weights are copied only if they are the ones that the published scores were measured with, or others that give the
    same scores to the last bit.

    Returns:
        the files that were written.
    """
    written = []
    for run_id, folder in zip(headline_configs(PROFILE), FOLDERS.values(), strict=True):
        target = published / PROFILE / "weights" / folder
        there, here = (Run(place / PROFILE / "runs" / run_id) for place in (published, outputs))
        if _to_copy(target, there, here):
            written += _copied(here, target)
        if (target / "metrics.json").is_file():
            text = card(read_metrics(target / "metrics.json"))
            if not (target / CARD).is_file() or (target / CARD).read_text(encoding="utf-8") != text:
                write_text(target / CARD, text)
                written.append(target / CARD)
    return written


def _to_copy(target: Path, there: Run, here: Run) -> bool:
    """Whether the weights made here belong in ``target``, because none there are those of the published run."""
    if not (there.finished and here.finished and "weights" in here.metrics):
        return False
    if here.metrics["last"] != there.metrics["last"] or not RunResults(here.folder).weights_fit():
        return False
    if not all((target / name).is_file() for name in FILES):
        return True
    ships = read_metrics(target / "metrics.json")
    measured = there.metrics.get("weights", ships["weights"])
    return ships["last"] != there.metrics["last"] or ships["weights"] != measured == here.metrics["weights"]


def _copied(run: Run, target: Path) -> Iterator[Path]:
    checkpoint = run.folder / "checkpoints" / "last"
    for source in (checkpoint / "config.json", run.folder / "metrics.json", checkpoint / "model.safetensors"):
        if not ((target / source.name).is_file() and filecmp.cmp(source, target / source.name, shallow=False)):
            with replacing(target / source.name) as part:
                shutil.copyfile(source, part)
            yield target / source.name


_TEXT = """# AdaTosk, {size}, {row}

One of the two models of Table 1 of [AdaTosk](https://arxiv.org/abs/2502.21004) at the size of profile `{profile}`, as
`make reproduce` trains it: {epochs} epochs from random weights, seed {seed}, on the {clips} training clips of `{data}`,
rendered faces of {people} people with {classes} expressions ({names}).{deviation}

## What it is not for

**Real faces.** These weights know rendered faces only. For a video of a real person they give an answer all the same,
and that answer means nothing. No decision about a person may rest on them.

## Scores

On the {tested} test clips of `{data}`, of {strangers} people whom the model has not seen; the last epoch:

{scores}

Always naming the most frequent class scores {majority:.1f}. Another seed scores differently:
[RESULTS.md](../../../../RESULTS.md) has fifteen.

## How to use it

```python
from adatosk import AdaTosk

model = AdaTosk.from_pretrained("results/{profile}/weights/{folder}").eval()
```

`adatosk predict video.mp4` takes the model with soft mask where `--model` names no other. `metrics.json` holds the
configuration, scores, commit and device of this one, and the SHA-256 of its weights, which is checked on loading. This
page is computed from it.
"""


_OVER_THE_MEAN = """

Its class-semantic mask is divided by the clip's mean; Eq. 11 of the paper has the clip's minimum and maximum
([notebook 14](../../../../notebooks/14_activation_map.ipynb))."""


def card(metrics: dict) -> str:
    """The model card of a run, in the format of the Hugging Face hub, from its ``metrics.json``."""
    run, last = RunConfig.model_validate(metrics["config"]), metrics["last"]
    mask = run.model.soft_mask
    row = "with soft mask" if mask is not None else "without soft mask"
    manifest = manifest_of(run)
    train, test = manifest.subset("train", run.data.fold), manifest.subset("test", run.data.fold)
    table = pd.DataFrame({_protocol(name): [one["uar"], one["war"]] for name, one in last.items()})
    table.index = pd.Index(["UAR, %", "WAR, %"], name="test protocol")
    results = [
        EvalResult(
            task_type="video-classification",
            dataset_type=manifest.name,
            dataset_name=manifest.name,
            metric_type=score.upper(),
            metric_name=f"{score.upper()}, {_protocol(name)}",
            metric_value=round(one[score], 2),
        )
        for name, one in last.items()
        for score in ("uar", "war")
    ]
    about = ModelCardData(
        license="mit",
        library_name="adatosk",
        pipeline_tag="video-classification",
        datasets=[manifest.name],
        tags=["dynamic-facial-expression-recognition", "masked-autoencoder"],
        model_name=f"adatosk_small, {row}",
        eval_results=results,
    )
    text = _TEXT.format(
        size="small",
        row=row,
        profile=PROFILE,
        folder=FOLDERS[row],
        epochs=run.train.epochs,
        seed=run.seed,
        clips=len(train),
        people=train["subject"].nunique(),
        data=manifest.name,
        classes=len(manifest.classes),
        names=", ".join(manifest.classes),
        deviation=_OVER_THE_MEAN if mask is not None and mask.scaling == "mean" else "",
        tested=len(test),
        strangers=test["subject"].nunique(),
        scores=table.T.map("{:.1f}".format).to_markdown(disable_numparse=True),
        majority=metrics["majority"]["war"],
    )
    return str(ModelCard(f"---\n{about.to_yaml()}\n---\n\n{text}"))


def _protocol(name: str) -> str:
    words = {"views_1": "one hard mask", "complementary": "complementary hard masks"}
    return words.get(name, name.replace("views_", "mean of ") + " hard masks")
