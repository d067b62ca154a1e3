"""`import hf_noise` costs nothing that is not used."""

import subprocess
import sys

import pytest

HEAVY = {
    "torch", "transformers", "datasets", "accelerate", "huggingface_hub", "sklearn", "scipy", "matplotlib", "pandas",
    "evaluate", "timm", "diffusers",
}


def loaded_after(code, of="name.partition('.')[0] for name in sys.modules"):
    """Top-level modules in a fresh process after the code ran, or those that `of` picks."""
    report = f"{code}\nimport sys; print(*{{{of}}})"
    done = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_loads_the_standard_library_alone():
    """Which is what makes it fast: NumPy or torch would take a multiple of the time."""
    before, loaded = loaded_after(""), loaded_after("import hf_noise")  # what finds an editable install is there before
    assert loaded - before - set(sys.stdlib_module_names) == {"hf_noise"}
    modules = loaded_after("import hf_noise", of="name for name in sys.modules if name.startswith('hf_noise')")
    assert modules == {"hf_noise", "hf_noise.data", "hf_noise.data.hook"}


@pytest.mark.parametrize(
    "use",
    [
        "from hf_noise.noise import UniformTokens, GaussianDocuments, plan_named",
        "from hf_noise.noise import UniformTokens; import numpy as np\n"
        "UniformTokens(ratio=1, vocab_size=9)(np.zeros((2, 3), int), np.arange(2))",
        "from hf_noise import LabelFlips; import numpy as np\n"
        "noise = LabelFlips.from_transition(np.full((3, 3), 1 / 3))\n"
        "noise(np.arange(3), np.arange(3)), noise.posterior(), noise.condition_number",
    ],
)
def test_noise_on_arrays_needs_numpy_alone(use):
    assert not loaded_after(use) & HEAVY


def test_a_metric_on_arrays_needs_scipy_alone():
    assert not loaded_after("import hf_noise.metrics; dir(hf_noise.metrics)") & HEAVY
    use = "from hf_noise.metrics import accuracy, classifier_calibration, marginal_kl"
    assert loaded_after(f"{use}; marginal_kl([0], [0], num_classes=2)") & HEAVY == {"scipy"}


def test_modules_of_the_hub_are_attributes():
    code = "import hf_noise; hf_noise.hub.adapter.load_adapter; hf_noise.hub.push.push_checkpoint; hf_noise.hub.nothing"
    failed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "module 'hf_noise.hub' has no attribute 'nothing'" in failed.stderr
