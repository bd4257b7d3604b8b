"""What a run is called, also after a file of the user's own."""

from __future__ import annotations

import pytest
from hydra import compose

from qig.config.composed import composing, typed_job
from qig.config.naming import run_name
from qig.config.validation import resolve
from qig.errors import ConfigError

OWN = {
    "method/mine.yaml": "# @package _global_\ndefaults:\n  - override /sensitivity: shallow\n"
    "  - override /equalization: grid\n  - override /rounding: nearest\n",
    "method/further.yaml": "# @package _global_\ndefaults: [mine, _self_]\nequalization: {points: 4}\n",
    "sensitivity/shallow.yaml": "defaults: [qig, _self_]\nmax_nodes: 4\nnodes: 2\n",
    "quant/w5a16.yaml": "defaults: [w4a16, _self_]\nname: w5a16\nweights: {bits: 5}\n",
    "model/mine.yaml": "defaults: [tiny_internvl, _self_]\nname: my_model\n",
}


@pytest.fixture
def own(tmp_path):
    """A folder as ``--config-dir`` takes it."""
    for name, text in OWN.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def composed(words, folder=None):
    place = [] if folder is None else [f"hydra.searchpath=[file://{folder}]"]
    with composing():
        return typed_job(compose("config", [*words, *place], return_hydra_config=True))


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["method=mbq"], "mbq"),
        (["method=mbq", "sensitivity=modality_gradient"], "mbq"),
        (["method=mbq", "sensitivity.control=permuted"], "mbq"),
        (["method=mbq", "sensitivity=qig"], "qig+grid+nearest"),
        (["method=rtn", "rounding=gptq"], "uniform+none+gptq"),
    ],
)
def test_a_preset_whose_group_was_replaced_is_no_longer_called_so(words, name):
    assert composed(words).method == name


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["method=mine"], "mine"),
        (["method=further"], "further"),
        (["method=mine", "rounding=gptq"], "shallow+grid+gptq"),
        (["method=further", "sensitivity=qig"], "qig+grid+nearest"),
        (["sensitivity=shallow"], "shallow+grid+nearest"),
        (["method=awq"], "awq"),
    ],
)
def test_files_of_the_users_own_are_methods_like_others(own, words, name):
    assert composed(words, own).method == name


def test_all_groups_may_come_from_the_users_own_files(own):
    config = composed(["method=further", "quant=w5a16", "model=mine"], own)
    assert (config.sensitivity.kind, config.sensitivity.max_nodes, config.equalization.points) == ("qig", 4, 4)
    assert (config.quant.name, config.quant.weights.bits, config.model.name) == ("w5a16", 5, "my_model")


def test_a_file_that_is_not_there_is_refused_with_the_choices(own):
    with pytest.raises(ConfigError, match=r"unknown method 'mien' \(did you mean 'mine'\?\); choose from: awq, .*mine"):
        composed(["method=mien"], own)


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["method=qig", "quant=w4a8"], "tiny_qwen2_vl w4a8 qig"),
        (["sensitivity.reference=zero", "seed=3"], "tiny_qwen2_vl w3a16 qig seed=3 sensitivity.reference=zero"),
        (["seed=3", "sensitivity.reference=zero"], "tiny_qwen2_vl w3a16 qig seed=3 sensitivity.reference=zero"),
        (["++sensitivity.nodes=2", "threads=1", "store=/x", "tracking.project=p", "device=cpu", "hydra.verbose=true"],
         "tiny_qwen2_vl w3a16 qig sensitivity.nodes=2"),
        (["sensitivity=attention"], "tiny_qwen2_vl w3a16 attention+grid+nearest"),
        (["method=rtn", "seed=3", "calibration.samples=8", "evaluation.limit=20"],
         "tiny_qwen2_vl w3a16 rtn evaluation.limit=20"),
        (["quant=fp16", "seed=3", "equalization.points=4", "model=tiny_internvl"], "tiny_internvl fp16 none"),
        (["calibration=sharegpt4v_coco", "calibration.path=/data/a/captions.json", "calibration.image_folder=/data/a/"],
         "tiny_qwen2_vl w3a16 qig calibration.image_folder=a calibration.path=captions.json "
         "calibration=sharegpt4v_coco"),
    ],
)  # fmt: skip
def test_a_tracked_run_is_called_after_what_it_is_in_its_grid(words, name):
    assert run_name(resolve(composed(words)), words, "0123456789abcdef") == name


def test_long_names_still_differ():
    words = [f"evaluation.tasks=[{'x' * 200}]"]
    names = {run_name(resolve(composed([])), words, key) for key in ("0123456789abcdef", "1123456789abcdef")}
    assert len(names) == 2 and all(len(name) <= 128 for name in names)
