"""A real run that provokes every footnote there is, and each found in Markdown, in LaTeX and on the page."""

from __future__ import annotations

import html

import pytest

from gauntlet.bench.runner import run_suite
from gauntlet.results import Store, load_results, render
from gauntlet.results.page import build_page
from gauntlet.results.presets import PRESETS
from gauntlet.results.reported import with_reported

pytest.importorskip("itables")

PLUGIN = '''
import torch
from gauntlet import attack, corruption, detector, model

calls = []

@attack("flaky", norm="linf", access="gradient")
def flaky(victim, images, labels, epsilon):
    """Fails for the second seed."""
    calls.append(epsilon)
    if len(calls) > 1:
        raise ValueError("it broke")
    return images

@corruption("broken")
def broken(images, severity):
    """Fails."""
    raise ValueError("nothing to see")

@detector("height", needs="output:h")
def height(h):
    """What one of the models alone yields."""
    return h

@model("stepped", outputs=("logits", "h"), trained=True)
class Stepped(torch.nn.Module):
    """Its logits are steps, so that no gradient comes through them; it has no head."""

    def __init__(self, classes=10, shape=(1, 28, 28)):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = torch.nn.Parameter(torch.randn(classes, 784, generator=generator))

    def forward(self, x):
        return (x.flatten(1) @ self.weight.T).round() + 0 * self.weight.sum()

    def forward_outputs(self, x):
        logits = self(x)
        return {"logits": logits, "h": logits[:, 0]}
'''
SUITE = {
    "name": "footnotes",
    "datasets": ["digits"],
    "models": [{"cnn-small": {"label": "CNN"}}, {"stepped": {"label": "Stepped"}}],
    "recipe": {"standard": {"epochs": 1}},
    "seeds": [0, 1],
    "attacks": ["fgsm", {"pgd": {"label": "PGD", "steps": 2}}, "flaky"],
    "epsilons": [0.3],
    "attack_images": 30,
    "detectors": ["msp", "ash", "height"],
    "ood": {"near": ["glyphs", "mnist"]},
    "corruptions": ["brightness", "broken"],
    "severities": [1],
    "tune": {"outliers": "glyphs", "oracle": True},
}
REPORTED = """source,evaluator,model,dataset,detector,ood_dataset,ood_group,metric,value
Smith 2020,ood,Net,digits,msp,glyphs,near,auroc,0.9
"""

#: What provokes it -> the words to be found below a table, and on the page.
FOOTNOTES = {
    "stand-in data": ("glyphs is a stand-in for notMNIST.",) * 2,
    "a failed check": ("† Stepped on digits fails the check", "check gradients failed"),
    "a skipped cell": ("skipped: ", "skipped"),
    "a failed cell": ("failed: ", "it broke"),
    "a cell that was never planned": ("–: not part of the plan.", "cells of ood that others have"),
    "tuned on the test set": ("Hyper-parameters were tuned on the test data; the value is optimistic.",) * 2,
    "partial seeds": ("Mean over up to 2 seeds", "Means over seeds are of fewer seeds than planned."),
    "reported by others": ("As reported by Smith 2020; not measured here.",) * 2,
    "an incomplete mean": ("not over corruption broken, which not all have.", "cells of this mean have no result"),
}


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """All tables of the run as Markdown and as LaTeX, and its page."""
    folder = tmp_path_factory.mktemp("footnotes")
    plugin, numbers = folder / "plugin.py", folder / "reported.csv"
    plugin.write_text(PLUGIN, encoding="utf-8")
    patch = pytest.MonkeyPatch()
    patch.setenv("GAUNTLET_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    patch.setenv("GAUNTLET_DATA", str(folder))
    run_suite(SUITE, out=folder, plugins=[str(plugin)])
    patch.undo()
    numbers.write_text(REPORTED, encoding="utf-8")
    frame = with_reported(load_results(folder), [numbers])
    tables = [table for preset in PRESETS.values() for table in preset(frame)]
    with Store.open(folder, create=False) as store:
        page = build_page(frame, store)
    formats = {fmt: "\n\n".join(render(table, fmt) for table in tables) for fmt in ("github", "latex")}
    return {**formats, "page": page.split('<section id="findings"')[1].split("</section>")[0]}


@pytest.mark.parametrize("what", FOOTNOTES)
@pytest.mark.parametrize("where", ["github", "latex", "page"])
def test_it_is_found(shown: dict[str, str], what: str, where: str) -> None:
    text = html.unescape(shown[where].replace("\\", ""))
    assert FOOTNOTES[what][where == "page"] in text


def test_doubtful_figures_bear_a_dagger_and_partial_means_their_count(shown: dict[str, str]) -> None:
    assert "†" in shown["github"]
    assert r"\textdagger{}" in shown["latex"]
    assert "(1/2)" in shown["github"]
    assert "(1/2)" in shown["latex"]
