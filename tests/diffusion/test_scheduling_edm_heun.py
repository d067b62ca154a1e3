"""The scheduler against closed forms and against algorithm 2 written out."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import EDMDPMSolverMultistepScheduler, EDMEulerScheduler

sys.path.insert(0, str(Path(__file__).parent))
from gaussian import GaussianNet  # noqa: E402  (tests are no package)

from hf_noise.diffusion import EDMHeunScheduler  # noqa: E402

# Specification, section 9.6, as printed.
GRID = [
    80, 57.586, 40.786, 28.375, 19.352, 12.910, 8.401, 5.315, 3.257, 1.923, 1.088, 0.585, 0.296, 0.140, 0.060, 0.0229,
    0.00753, 0.002, 0,
]  # fmt: skip


def sample(scheduler, net, x, steps, generator=None, **churn):
    scheduler.set_timesteps(steps, **churn)
    for t in scheduler.timesteps:
        if churn:
            x = scheduler.add_churn(x, t, generator)
        raw = net(scheduler.scale_model_input(x, t), t)[0]
        x = scheduler.step(raw, t, x).prev_sample
    return x


def test_the_grid_is_that_of_the_paper():
    scheduler = EDMHeunScheduler()
    scheduler.set_timesteps(18)
    for sigma, printed in zip(scheduler.sigmas.tolist(), GRID, strict=True):
        assert abs(sigma - printed) <= 0.5 * 10 ** -len(str(printed).partition(".")[2]) + 1e-12
    theirs = EDMEulerScheduler()
    theirs.set_timesteps(18)
    torch.testing.assert_close(scheduler.sigmas.float(), theirs.sigmas, rtol=1e-6, atol=0)
    assert len(scheduler.timesteps) == 35 and scheduler.init_noise_sigma == 80
    torch.testing.assert_close(scheduler.timesteps[::2], theirs.timesteps)
    torch.testing.assert_close(scheduler.timesteps[1::2], theirs.timesteps[1:])
    scheduler.set_timesteps(1)
    assert scheduler.sigmas.tolist() == [pytest.approx(80), 0] and len(scheduler.timesteps) == 1


def test_observed_orders():
    """Halving the steps quarters Heun's error and halves Euler's."""
    x = 80 * torch.tensor([-1.5, 0.2, 1.0], dtype=torch.float64).reshape(3, 1, 1, 1)
    net = GaussianNet(std=0.6)  # not sigma_data: c_skip x would be exact at once
    exact = net.flowed(x, 80.0)

    def order(scheduler, steps):
        errors = [(sample(scheduler, net, x, n + 1) - exact).abs().max().item() for n in (steps, 2 * steps)]
        return math.log2(errors[0] / errors[1])

    # The last step, from sigma_min to 0, is always Euler's: it must not be what is measured.
    assert order(EDMHeunScheduler(sigma_min=1e-6), 100) == pytest.approx(2, abs=0.1)
    assert order(EDMEulerScheduler(sigma_min=1e-6), 100) == pytest.approx(1, abs=0.1)


def test_the_three_schedulers_agree():
    x = 80 * torch.randn(50, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    net = GaussianNet(std=0.4)
    exact = net.flowed(x, 80.0)
    assert exact.std() == pytest.approx(0.4, rel=0.15)  # 200 draws; 3 standard errors
    heun = sample(EDMHeunScheduler(), net, x, 160)
    assert (heun - exact).abs().max() < 2e-3
    for scheduler, steps in ((EDMDPMSolverMultistepScheduler(), 160), (EDMEulerScheduler(), 1600)):
        assert (sample(scheduler, net, x, steps) - heun).abs().max() < 1e-2


@pytest.mark.parametrize("churn", [{}, dict(s_churn=40, s_tmin=0.05, s_tmax=50, s_noise=1.003), dict(s_churn=2.0)])
def test_it_is_algorithm_2(churn):
    """Karras et al. 2022, algorithm 2, written out in one loop."""
    steps, net = 12, GaussianNet(std=0.3)
    start = 80 * torch.randn(4, 1, 2, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ours = sample(EDMHeunScheduler(), net, start, steps, torch.Generator().manual_seed(2), **churn)
    seen, net.calls = net.calls, []

    generator = torch.Generator().manual_seed(2)
    ends = 80 ** (1 / 7), 0.002 ** (1 / 7)
    sigmas = [(ends[0] + i / (steps - 1) * (ends[1] - ends[0])) ** 7 for i in range(steps)] + [0.0]
    x, calls = start, []

    def denoised(x, sigma):
        calls.append((sigma, x))
        return net.denoised(x, sigma, 0.0)

    for now, following in zip(sigmas[:-1], sigmas[1:]):
        gamma = 0.0
        if churn and churn.get("s_tmin", 0) <= now <= churn.get("s_tmax", math.inf):
            gamma = min(churn["s_churn"] / steps, math.sqrt(2) - 1)
        raised = now + gamma * now
        if gamma:
            noise = torch.randn(x.shape, generator=generator).double() * churn.get("s_noise", 1.0)
            x = x + math.sqrt(raised**2 - now**2) * noise
        slope = (x - denoised(x, raised)) / raised
        euler = x + (following - raised) * slope
        if following:
            slope2 = (euler - denoised(euler, following)) / following
            x = x + (following - raised) * (slope + slope2) / 2
        else:
            x = euler
    torch.testing.assert_close(ours, x, rtol=1e-5, atol=1e-6)  # the timestep, ln(sigma) / 4, is float32
    assert len(seen) == len(calls) == 2 * steps - 1
    for (sigma, shown), (expected_sigma, expected) in zip(seen, calls):
        assert sigma == pytest.approx(expected_sigma, rel=2e-6)
        torch.testing.assert_close(shown, expected, rtol=1e-5, atol=1e-6)


def test_churn_keeps_the_distribution():
    """20,000 pixels: 4 standard errors of the deviation are 2 %; false alarm 1 in 15,000, and the seed is fixed."""
    generator = torch.Generator().manual_seed(3)
    x = 80 * torch.randn(200, 1, 10, 10, generator=generator)
    out = sample(EDMHeunScheduler(), GaussianNet(std=0.5), x, 200, generator, s_churn=80.0)
    assert out.std().item() == pytest.approx(0.5, rel=0.02)
    assert np.corrcoef(out.flatten(), x.flatten())[0, 1] < 0.9  # without churn it would be 1


def test_the_state_stays_in_float32_under_a_bfloat16_network():
    scheduler = EDMHeunScheduler()
    scheduler.set_timesteps(3)
    x = 80 * torch.randn(1, 1, 2, 2)
    for t in scheduler.timesteps:
        raw = torch.zeros(1, 1, 2, 2, dtype=torch.bfloat16)
        assert scheduler.scale_model_input(x, t).dtype == torch.float32
        x = scheduler.step(raw, t, x, return_dict=False)[0]
        assert x.dtype == torch.float32


def test_v_prediction_is_the_opposite_sign():
    x, raw = torch.randn(2, 1, 2, 2), torch.randn(2, 1, 2, 2)
    plus, minus = EDMHeunScheduler(), EDMHeunScheduler(prediction_type="v_prediction")
    torch.testing.assert_close(plus.precondition_outputs(x, raw, 0.7), minus.precondition_outputs(x, -raw, 0.7))
    theirs = EDMEulerScheduler().precondition_outputs(x, raw, 0.7)
    torch.testing.assert_close(plus.precondition_outputs(x, raw, 0.7), theirs)


def test_noise_is_added_at_the_sigma_of_the_timestep():
    x, noise, sigma = torch.zeros(2, 1, 2, 2), torch.randn(2, 1, 2, 2), torch.tensor([0.5, 3.0])
    noisy = EDMHeunScheduler().add_noise(x, noise, sigma.log() / 4)
    torch.testing.assert_close(noisy, sigma[:, None, None, None] * noise)


def test_a_pass_may_begin_in_the_middle():
    """A sigma inside the grid ends one step and begins the next; the pass begins the next."""
    scheduler, net = EDMHeunScheduler(), GaussianNet(std=0.6)
    scheduler.set_timesteps(18)
    x, shown = torch.randn(2, 1, 2, 2), []
    for t in scheduler.timesteps[20:]:
        out = scheduler.step(net(scheduler.scale_model_input(x, t), t)[0], t, x)
        x, shown = out.prev_sample, [*shown, scheduler.step_index]
    assert shown == list(range(21, 36))
    with pytest.raises(ValueError, match="has come to its end; call set_timesteps"):
        scheduler.step(x, t, x)


def test_config_round_trip_and_from_another_scheduler(tmp_path):
    EDMHeunScheduler(sigma_max=40.0, rho=5.0).save_pretrained(tmp_path)
    again = EDMHeunScheduler.from_pretrained(tmp_path)
    again.set_timesteps(4)
    assert again.config.rho == 5 and again.sigmas[0] == pytest.approx(40)
    assert EDMHeunScheduler.from_config(EDMEulerScheduler(sigma_data=0.7).config).config.sigma_data == 0.7
    with pytest.raises(ValueError, match="sigma_schedule must be one of 'karras', got 'exponential'"):
        EDMHeunScheduler.from_config(EDMEulerScheduler(sigma_schedule="exponential").config)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sigma_min": 0.0}, r"sigma_min must lie in \[1e-18, 1e18\], got 0.0"),
        ({"sigma_min": 90.0}, "0 < sigma_min < sigma_max, got 90.0 and 80.0"),
        ({"sigma_max": math.inf}, r"sigma_max must lie in \[1e-18, 1e18\], got inf"),
        ({"sigma_max": math.nan}, "got nan"),
        ({"sigma_data": -1.0}, r"sigma_data must lie in \[1e-18, 1e18\], got -1.0"),
        ({"rho": math.inf}, r"rho must lie in \(0, inf\), got inf; EDM takes 7"),
        ({"rho": 0}, "rho must lie in .*, got 0"),
        ({"rho": 1e16}, r"rho = 1e\+16 gives no grid of 1000 steps from 80.0 down to 0.002"),
        ({"rho": 0.01}, "rho = 0.01 gives no grid"),
        ({"rho": True}, "rho must be a number in .*, got True"),
        ({"rho": "7"}, "got '7'"),
        ({"num_train_timesteps": 0}, r"num_train_timesteps must be a whole number in \[1, 1000000\], got 0"),
        ({"num_train_timesteps": 10**400}, "got a whole number of 1329 bits"),
        ({"prediction_type": "sample"}, "one of 'epsilon', 'v_prediction', got 'sample'"),
        ({"final_sigmas_type": None}, "final_sigmas_type must be one of 'zero', got None"),
    ],
)
def test_bad_configurations(options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        EDMHeunScheduler(**options)


@pytest.mark.parametrize("rho", [0.5, 1, 3.0, 7, 100.0, 1e9])
def test_the_grid_keeps_its_ends_for_any_rho(rho):
    scheduler = EDMHeunScheduler(rho=rho)
    scheduler.set_timesteps(40)
    sigmas = scheduler.sigmas[:-1]
    assert sigmas[0] == pytest.approx(80, rel=1e-6) and sigmas[-1] == pytest.approx(0.002, rel=1e-6)
    assert (sigmas.diff() < 0).all()


def test_numbers_of_numpy_are_saved_as_plain_ones(tmp_path):
    EDMHeunScheduler(rho=np.float32(5), sigma_max=np.int64(40)).save_pretrained(tmp_path)
    assert EDMHeunScheduler.from_pretrained(tmp_path).config.rho == 5


def test_bad_use():
    scheduler, x = EDMHeunScheduler(), torch.zeros(1, 1, 2, 2)
    for steps in (0, -1, 2.5, math.nan, math.inf, "4", True, None, 10**7):
        with pytest.raises((ValueError, TypeError), match="num_inference_steps must be a whole number in"):
            scheduler.set_timesteps(steps)
    for churn, message in (
        ({"s_churn": -1}, r"s_churn must lie in \[0, inf\], got -1"),
        ({"s_churn": math.nan}, "s_churn must lie in"),
        ({"s_noise": math.inf}, r"s_noise must lie in \[0, 1e6\], got inf"),
        ({"s_tmin": math.nan}, "s_tmin must lie in"),
        ({"s_tmin": 2, "s_tmax": 1}, "need s_tmin <= s_tmax, got 2 and 1"),
        ({"s_tmax": "80"}, "s_tmax must be a number in .*, got '80'"),
        ({"device": "gpu"}, "device must be one that torch finds here, got 'gpu'"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            scheduler.set_timesteps(4, **churn)
    scheduler.set_timesteps(4, s_churn=1.0)
    with pytest.raises(ValueError, match="the integer 0"):
        scheduler.step(x, 0, x)
    with pytest.raises(ValueError, match="begins no step"):
        scheduler.step(x, torch.tensor(0.123), x)
    with pytest.raises(ValueError, match="begin_index must be even, got 3"):
        scheduler.set_begin_index(3)
    with pytest.raises(ValueError, match=r"begin_index must be a whole number in \[0, 6\], got 8"):
        scheduler.set_begin_index(8)
    with pytest.raises(TypeError, match="timestep must be an entry of scheduler.timesteps, got '1'"):
        scheduler.step(x, "1", x)
    with pytest.raises(ValueError, match=r"model_output must have the shape of sample, \[1, 1, 2, 2\], got"):
        scheduler.step(x[:, :, :1], scheduler.timesteps[0], x)
    with pytest.raises(TypeError, match="sample must be a tensor of floating-point numbers, .*, got torch.int64"):
        scheduler.scale_model_input(x.long(), scheduler.timesteps[0])
    with pytest.raises(ValueError, match="timesteps must be one for each of 1 images"):
        scheduler.add_noise(x, x, torch.zeros(2))
    with pytest.raises(ValueError, match="has churn: call add_churn"):
        scheduler.step(x, scheduler.timesteps[0], x)
