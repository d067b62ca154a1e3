"""The pipeline on a small UNet2DModel, and on a network whose images are known."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, EDMDPMSolverMultistepScheduler, EDMEulerScheduler, UNet2DModel

sys.path.insert(0, str(Path(__file__).parent))
from gaussian import GaussianNet  # noqa: E402  (tests are no package)

from hf_noise.diffusion import EDMHeunScheduler, EDMPipeline  # noqa: E402
from hf_noise.diffusion.pipeline_edm import image_generators  # noqa: E402
from hf_noise.hub.load import load_noise  # noqa: E402
from hf_noise.noise import LabelFlips  # noqa: E402

SCHEDULERS = [EDMHeunScheduler, EDMEulerScheduler, EDMDPMSolverMultistepScheduler]
NOISE = LabelFlips.symmetric(ratio=1.0, num_classes=3, seed=4)


def small_unet(channels=1, embeddings=4, **options):
    torch.manual_seed(0)
    usual = dict(
        sample_size=8, in_channels=channels, out_channels=channels, num_class_embeds=embeddings,
        block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, dropout=0.5,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    return UNet2DModel(**(usual | options))


def quiet(pipeline):
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def unet():
    return small_unet()


@pytest.fixture
def pipeline(unet):
    return quiet(EDMPipeline(unet, EDMHeunScheduler(), has_unconditional=True, hf_noise=NOISE.to_dict()))


def images(pipeline, *args, **options):
    return pipeline(*args, output_type="pt", num_inference_steps=5, **options).images


@pytest.mark.parametrize(("scheduler", "s_churn"), [*((one, 0) for one in SCHEDULERS), (EDMHeunScheduler, 10)])
def test_an_image_is_the_same_in_any_batch(unet, scheduler, s_churn):
    pipeline = quiet(EDMPipeline(unet, scheduler()))
    labels = [0, 1, 2, 0, 1, 2, 2]
    options = dict(seed=7, s_churn=s_churn)
    whole = images(pipeline, labels, **options)
    assert (whole[1] - whole[4]).abs().max() > 0.1  # of one class, from two streams
    parts = [images(pipeline, labels[a:b], first_index=a, **options) for a, b in ((0, 1), (1, 5), (5, 7))]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=1e-5)
    backwards = [images(pipeline, [labels[i]], first_index=i, **options)[0] for i in reversed(range(7))]
    torch.testing.assert_close(torch.stack(backwards[::-1]), whole, rtol=0, atol=1e-5)
    # In one batch of another order: a list of seeds, each with the stream of its first image.
    seeds = [images(pipeline, [2], seed=s, s_churn=s_churn)[0] for s in (5, 9)]
    listed = images(pipeline, 2, seed=[9, 5], s_churn=s_churn)
    torch.testing.assert_close(listed, torch.stack(seeds[::-1]), rtol=0, atol=1e-5)


def test_streams_have_nothing_in_common():
    streams = [(s, i) for s in (0, 1, 2**40) for i in (0, 1, 2)]
    first = {float(torch.randn(1, generator=image_generators(s, 1, i)[0])) for s, i in streams}
    assert len(first) == len(streams)


def test_the_network_is_called_35_times_without_its_dropout(unet, pipeline):
    calls = []
    hook = unet.register_forward_pre_hook(lambda module, args: calls.append(module.training))
    unet.train()
    try:
        a, b = (pipeline(1, seed=0, output_type="np").images for _ in range(2))
        assert unet.training and not any(calls) and len(calls) == 2 * 35
    finally:
        hook.remove()
        unet.eval()
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("channels", [1, 3])
def test_output_types(channels):
    pipeline = quiet(EDMPipeline(small_unet(channels), EDMHeunScheduler()))
    tensors, arrays, pictures = (
        pipeline([0, 1], seed=1, num_inference_steps=3, output_type=kind).images for kind in ("pt", "np", "pil")
    )
    assert tensors.shape == (2, channels, 8, 8) and tensors.dtype == torch.float32
    assert arrays.shape == (2, 8, 8, channels) and arrays.min() >= 0 and arrays.max() <= 1
    np.testing.assert_array_equal(arrays, tensors.permute(0, 2, 3, 1))
    assert [picture.mode for picture in pictures] == ["L" if channels == 1 else "RGB"] * 2
    pixels = np.stack([np.asarray(picture).reshape(8, 8, channels) for picture in pictures])
    np.testing.assert_array_equal(pixels, (arrays * 255).round())
    (alone,) = pipeline([0, 1], seed=1, num_inference_steps=3, output_type="pt", return_dict=False)
    assert torch.equal(alone, tensors)


def test_the_ways_to_say_how_many(pipeline):
    assert images(pipeline, 2, 3, seed=0).shape[0] == 3
    assert torch.equal(images(pipeline, 2, 3, seed=0), images(pipeline, torch.tensor([2, 2, 2]), seed=0))
    assert torch.equal(images(pipeline, np.array([2, 2, 2]), seed=0), images(pipeline, [2, 2, 2], seed=0))
    assert torch.equal(images(pipeline, np.array([0, 2])[::-1], seed=0), images(pipeline, (2, 0), seed=0))
    assert images(pipeline, seed=[0, 1]).shape[0] == 2  # unconditional
    assert images(pipeline).shape[0] == 1
    generators = [torch.Generator().manual_seed(i) for i in range(2)]
    assert images(pipeline, 1, generator=generators).shape[0] == 2


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_guidance_shifts_a_gaussian_by_its_scale(scheduler):
    """D is linear in the mean: guided by w, the mean is m_uncond + w (m_class - m_uncond)."""
    means, std, w = (-0.2, 0.1, 0.05), 0.15, 2.5  # the last is the unconditional class
    pipeline = quiet(EDMPipeline(GaussianNet(std, means, has_classes=True), scheduler(), has_unconditional=True))
    guided = pipeline([0, 1], seed=3, num_inference_steps=60, guidance_scale=w, output_type="pt").images
    for i, mean in enumerate(means[:2]):
        shifted = means[2] + w * (mean - means[2])
        alone = quiet(EDMPipeline(GaussianNet(std, (shifted,)), scheduler()))
        expected = alone(seed=3, first_index=i, num_inference_steps=60, output_type="pt").images
        torch.testing.assert_close(guided[i : i + 1], expected, rtol=0, atol=1e-4)
    unguided = pipeline([0, 1], seed=3, num_inference_steps=60, output_type="pt").images
    assert (unguided[1] - guided[1]).abs().max() > 0.02


def test_float64_state_and_low_precision(unet, pipeline):
    full = images(pipeline, [0, 1], seed=0)
    for s_churn in (0, 10):
        single, double = (
            images(pipeline, [0, 1], seed=0, s_churn=s_churn, state_dtype=dtype)
            for dtype in (torch.float32, torch.float64)
        )
        assert (double - single).abs().max() < 1e-5 and (torch.equal(single, full) == (s_churn == 0))
    with torch.autocast("cpu", torch.bfloat16):
        assert (images(pipeline, [0, 1], seed=0) - full).abs().max() < 0.1
    half = quiet(EDMPipeline(small_unet().to(torch.bfloat16), EDMHeunScheduler()))
    assert (images(half, [0, 1], seed=0) - full).abs().max() < 0.1


def test_save_and_load(pipeline, tmp_path):
    before = images(pipeline, [0, 2], seed=1)
    pipeline.save_pretrained(tmp_path / "saved")
    files = {path.name for path in (tmp_path / "saved").rglob("*") if path.is_file()}
    assert files == {"model_index.json", "scheduler_config.json", "config.json", "diffusion_pytorch_model.safetensors"}
    again = quiet(EDMPipeline.from_pretrained(tmp_path / "saved"))
    assert torch.equal(images(again, [0, 2], seed=1), before)
    assert load_noise(tmp_path / "saved") == NOISE == load_noise(tmp_path / "saved" / "model_index.json")
    swapped = EDMPipeline.from_pretrained(tmp_path / "saved", scheduler=EDMEulerScheduler())
    assert isinstance(swapped.scheduler, EDMEulerScheduler) and load_noise(tmp_path / "saved") == NOISE

    (tmp_path / "saved/unet/diffusion_pytorch_model.safetensors").unlink()
    torch.save(pipeline.unet.state_dict(), tmp_path / "saved/unet/diffusion_pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        EDMPipeline.from_pretrained(tmp_path / "saved")
    with pytest.raises(ValueError, match="safetensors and its own code only"):
        EDMPipeline.from_pretrained(tmp_path / "saved", use_safetensors=False)
    with pytest.raises(ValueError, match="safetensors and its own code only"):
        EDMPipeline.from_pretrained(tmp_path / "saved", custom_pipeline="other")
    with pytest.raises(FileNotFoundError, match="is no existing folder, and no repository"):
        EDMPipeline.from_pretrained(str(tmp_path / "saveed"))
    with pytest.raises(FileNotFoundError, match="there is no folder '.*saveed'; a repository is named by a string"):
        EDMPipeline.from_pretrained(tmp_path / "saveed")


def test_code_in_a_folder_is_not_run(pipeline, tmp_path):
    """A network of the folder's own would be imported by diffusers if it is told to trust it."""
    pipeline.save_pretrained(tmp_path / "saved")
    index = tmp_path / "saved" / "model_index.json"
    parts = json.loads(index.read_text())
    parts["unet"] = ["evil", "Network"]
    index.write_text(json.dumps(parts))
    (tmp_path / "saved" / "unet" / "evil.py").write_text(
        f"from pathlib import Path\nPath({str(tmp_path / 'ran')!r}).touch()\n"
        "from diffusers import UNet2DModel\nclass Network(UNet2DModel):\n    pass\n"
    )
    with pytest.raises(ValueError, match="its own code only"):
        EDMPipeline.from_pretrained(tmp_path / "saved", trust_remote_code=True)
    with pytest.raises(ValueError, match=r"its unet is \['evil', 'Network'\], not diffusers' UNet2DModel"):
        EDMPipeline.from_pretrained(tmp_path / "saved", trust_remote_code=False)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(class_labels=[0, 3]), r"class_labels must lie in \[0, 2\], got 3"),
        (dict(class_labels=-1), "got -1"),
        (dict(class_labels=[0.5]), r"must be integers, got \[0.5\]"),
        (dict(class_labels=[[0, 1]]), r"one class or a list of them, got the shape \(1, 2\)"),
        (dict(class_labels=[0, 1], batch_size=3), "batch_size says 3, class_labels says 2"),
        (dict(class_labels=[0, 1], seed=[1, 2, 3]), "class_labels says 2, seed says 3"),
        (dict(class_labels=[]), r"number of images must be a whole number in \[1, 131072\], got 0"),
        (dict(class_labels=0, batch_size=2**40), "it counts the images"),
        (dict(class_labels=[0, None]), r"class_labels must be integers, got \[0, None\]"),
        (dict(class_labels="3"), "class_labels must be integers, got '3'"),
        (dict(class_labels=2**70), "class_labels must be integers, got 1180591620717411303424"),
        (dict(class_labels=True), "must be integers, got True"),
        (dict(class_labels=np.ma.array([0, 1], mask=[True, False])), "class_labels must not be a masked array"),
        (dict(class_labels=0, batch_size=True), "batch_size must be a whole number in .*, got True"),
        (dict(class_labels=0, generator=3), "generator must be a torch.Generator or a list of them, got 3"),
        (dict(class_labels=0, generator=torch.Generator(), seed=0), "seed or generator, not both"),
        (dict(class_labels=0, generator=[torch.Generator()], batch_size=2), "batch_size says 2, generator says 1"),
        (dict(class_labels=0, seed=1.0), r"seed must be a whole number in \[0, inf\), got 1.0; or a list of them"),
        (dict(class_labels=0, seed="1"), "got '1'; or a list of them"),
        (dict(class_labels=[0], seed=[1.0]), r"each seed must be a whole number in \[0, inf\), got 1.0"),
        (dict(class_labels=0, seed=-3), r"must be a whole number in \[0, inf\), got -3"),
        (dict(class_labels=[0], seed=[1], first_index=2), "got 2 with a list of seeds"),
        (dict(class_labels=0, guidance_scale=0.5), r"guidance_scale must lie in \[1, 1e6\], got 0.5"),
        (dict(class_labels=0, guidance_scale=float("nan")), "got nan; 1 is no guidance"),
        (dict(class_labels=0, s_churn="1"), r"s_churn must be a number in \[0, inf\], got '1'"),
        (dict(guidance_scale=2.0), "guidance_scale > 1 needs class_labels"),
        (dict(class_labels=0, num_inference_steps=0), r"num_inference_steps must be a whole number in .*, got 0"),
        (dict(class_labels=0, output_type="jpg"), "'pt', got 'jpg'"),
        (dict(class_labels=0, state_dtype=torch.float16), "got torch.float16"),
    ],
)
def test_bad_input(pipeline, arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        pipeline(**arguments)


@pytest.mark.parametrize(
    ("embeddings", "said", "classes", "has_unconditional"),
    [
        (4, {}, 4, False),
        (4, {"num_classes": 4}, 4, False),
        (4, {"num_classes": 3}, 3, False),  # of a trainer that left no labels out
        (4, {"has_unconditional": True}, 3, True),
        (4, {"num_classes": 3, "has_unconditional": True}, 3, True),
        (1, {"has_unconditional": True}, 0, True),
        (None, {}, 0, False),
        (None, {"num_classes": 0}, 0, False),
    ],
)
def test_classes_and_the_unconditional_one(embeddings, said, classes, has_unconditional):
    """Each class in [0, num_classes) has the embedding of its number, and the unconditional one the last."""
    pipeline = quiet(EDMPipeline(small_unet(embeddings=embeddings), EDMHeunScheduler(), **said))
    assert (pipeline.config.num_classes, pipeline.config.has_unconditional) == (classes, has_unconditional)
    seen = []
    pipeline.unet.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[2]))
    asked = list(range(classes)) + [None] * (has_unconditional or not classes)
    for label in asked:
        pipeline(label, num_inference_steps=1, output_type="pt")
    assert [None if given is None else given.item() for given in seen] == (
        [None] if embeddings is None else list(range(classes + has_unconditional))
    )
    for label in {classes, *([] if has_unconditional or not classes else [None])}:
        with pytest.raises(ValueError, match="the network (has no classes|knows no unconditional class)|must lie in"):
            pipeline(label, num_inference_steps=1)


@pytest.mark.parametrize(
    ("embeddings", "said", "message"),
    [
        (4, {"num_classes": 10}, "has 4 class embeddings: num_classes must be 4 or 3, got 10"),
        (4, {"num_classes": 4, "has_unconditional": True}, "must be 3, as the last is the unconditional class, got 4"),
        (4, {"num_classes": "3"}, "num_classes must be a whole number in .*, got '3'"),
        (4, {"has_unconditional": 1}, "has_unconditional must be True or False, got 1"),
        (None, {"has_unconditional": True}, "has_unconditional=True, but the network has no class embeddings"),
        (None, {"num_classes": 1}, "has 0 class embeddings: num_classes must be 0, got 1"),
    ],
)
def test_classes_that_contradict_the_network(embeddings, said, message):
    with pytest.raises((ValueError, TypeError), match=message):
        EDMPipeline(small_unet(embeddings=embeddings), EDMHeunScheduler(), **said)


@pytest.mark.parametrize("has_unconditional", [True, False])
def test_a_pipeline_saved_by_an_older_version_means_the_same(tmp_path, has_unconditional):
    """It said both in `model_index.json`, for a network of K + 1 embeddings."""
    EDMPipeline(small_unet(), EDMHeunScheduler()).save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    index |= {"num_classes": 3, "has_unconditional": has_unconditional, "hf_noise": NOISE.to_dict()}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    config = EDMPipeline.from_pretrained(tmp_path).config
    assert (config.num_classes, config.has_unconditional, config.hf_noise) == (3, has_unconditional, NOISE.to_dict())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sample_size": None}, "states no image size; make it with sample_size="),
        ({"out_channels": 2}, "makes images of 2 channels out of 1"),
        ({"time_embedding_type": "fourier"}, "may be negative; leave out time_embedding_type="),
        ({"class_embed_type": "timestep"}, "no table of classes; leave out class_embed_type="),
    ],
)
def test_networks_that_are_none_of_edm(options, message):
    with pytest.raises(ValueError, match=f"cannot be sampled: .*{message}"):
        EDMPipeline(small_unet(**options), EDMHeunScheduler())


def test_other_parts_are_refused(unet):
    with pytest.raises(ValueError, match="DDPMScheduler is no scheduler of EDM; take EDMHeunScheduler"):
        EDMPipeline(unet, DDPMScheduler())
    with pytest.raises(TypeError, match="unet must be a UNet2DModel, got Linear"):
        EDMPipeline(torch.nn.Linear(2, 2), EDMHeunScheduler())
    with pytest.raises(TypeError, match="hf_noise cannot be written as JSON"):
        EDMPipeline(unet, EDMHeunScheduler(), hf_noise={"transition": np.eye(3)})


def test_what_the_network_cannot_do(unet):
    untrained = EDMPipeline(unet, EDMHeunScheduler(), num_classes=3)
    plain = EDMPipeline(small_unet(embeddings=None), EDMHeunScheduler())
    exact = EDMPipeline(unet, EDMHeunScheduler())
    with pytest.raises(ValueError, match=r"lie in \[0, 2\], got 3; the network's last embedding is left out"):
        untrained(3)
    for pipeline in (untrained, exact):
        with pytest.raises(ValueError, match="knows no unconditional class"):
            pipeline()
        with pytest.raises(ValueError, match="trained with an unconditional class"):
            pipeline(0, guidance_scale=2.0)
    with pytest.raises(ValueError, match="has no classes, got class_labels=1"):
        plain(1)
    with pytest.raises(ValueError, match="needs EDMHeunScheduler; EDMEulerScheduler adds its noise after"):
        EDMPipeline(unet, EDMEulerScheduler())(0, s_churn=10)
    with pytest.raises(TypeError, match="pass noise.to_dict"):
        EDMPipeline(unet, EDMHeunScheduler(), hf_noise=NOISE)
    broken = small_unet()
    torch.nn.init.constant_(broken.conv_out.bias, float("nan"))
    with pytest.raises(FloatingPointError, match="NaN or infinity"):
        quiet(EDMPipeline(broken, EDMHeunScheduler()))(0, num_inference_steps=2)
