"""How much of a user's own labels is wrong, which rows, and what to do about it.

Each name loads its module when it is first used.
"""

from typing import TYPE_CHECKING

from hf_noise.lazy_names import lazy_names

if TYPE_CHECKING:
    from hf_noise.audit.choose import ChosenEstimate as ChosenEstimate
    from hf_noise.audit.choose import choose_estimate as choose_estimate
    from hf_noise.audit.diffusion import cross_fitted_posterior as cross_fitted_posterior
    from hf_noise.audit.diffusion import fit_time_classifier as fit_time_classifier
    from hf_noise.audit.diffusion import time_posterior as time_posterior
    from hf_noise.audit.dynamics import TrainingDynamics as TrainingDynamics
    from hf_noise.audit.dynamics import area_under_margin as area_under_margin
    from hf_noise.audit.dynamics import aum_score as aum_score
    from hf_noise.audit.dynamics import forgetting_events as forgetting_events
    from hf_noise.audit.dynamics import forgetting_score as forgetting_score
    from hf_noise.audit.dynamics import mean_loss as mean_loss
    from hf_noise.audit.dynamics import read_dynamics as read_dynamics
    from hf_noise.audit.dynamics import small_loss_score as small_loss_score
    from hf_noise.audit.estimators.noise_estimate import NoiseEstimate as NoiseEstimate
    from hf_noise.audit.label_audit import LabelAudit as LabelAudit
    from hf_noise.audit.label_audit import audit_labels as audit_labels
    from hf_noise.audit.lists import default_list as default_list
    from hf_noise.audit.lists import list_at_fdr as list_at_fdr
    from hf_noise.audit.measured import Measured as Measured
    from hf_noise.audit.page import write_page as write_page
    from hf_noise.audit.plan import Plan as Plan
    from hf_noise.audit.plan import PlanOption as PlanOption
    from hf_noise.audit.powered import Verified as Verified
    from hf_noise.audit.powered import combine_verified as combine_verified
    from hf_noise.audit.recalibrate import recalibrated as recalibrated
    from hf_noise.audit.sampling import Sample as Sample
    from hf_noise.audit.sampling import draw_sample as draw_sample
    from hf_noise.audit.sheet import read_sheet as read_sheet
    from hf_noise.audit.sheet import write_sheet as write_sheet
    from hf_noise.audit.token_plan import TokenOption as TokenOption
    from hf_noise.audit.token_plan import TokenPlan as TokenPlan
    from hf_noise.audit.token_plan import plan_tokens as plan_tokens

_WHERE = {
    "ChosenEstimate": "choose",
    "LabelAudit": "label_audit",
    "Measured": "measured",
    "NoiseEstimate": "estimators.noise_estimate",
    "Plan": "plan",
    "PlanOption": "plan",
    "Sample": "sampling",
    "TokenOption": "token_plan",
    "TokenPlan": "token_plan",
    "TrainingDynamics": "dynamics",
    "Verified": "powered",
    "area_under_margin": "dynamics",
    "audit_labels": "label_audit",
    "aum_score": "dynamics",
    "choose_estimate": "choose",
    "combine_verified": "powered",
    "cross_fitted_posterior": "diffusion",
    "default_list": "lists",
    "draw_sample": "sampling",
    "fit_time_classifier": "diffusion",
    "forgetting_events": "dynamics",
    "forgetting_score": "dynamics",
    "list_at_fdr": "lists",
    "mean_loss": "dynamics",
    "plan_tokens": "token_plan",
    "read_dynamics": "dynamics",
    "read_sheet": "sheet",
    "recalibrated": "recalibrate",
    "small_loss_score": "dynamics",
    "write_page": "page",
    "time_posterior": "diffusion",
    "write_sheet": "sheet",
}

__all__ = list(_WHERE)

__getattr__, __dir__ = lazy_names(__name__, _WHERE)
