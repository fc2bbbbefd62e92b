"""GEM-VLA as an out-of-tree policy of LeRobot.

The rule for such packages (huggingface/lerobot, docs/source/bring_your_own_policies.mdx, commit 042f9d6c): the
distribution's name begins with `lerobot_policy_`; a configuration is registered under the policy's name; the policy is
imported from `modeling_NAME` beside `configuration_NAME`, `NAMEConfig` → `NAMEPolicy`; and `processor_NAME` has
`make_NAME_pre_post_processors`.
"""

from __future__ import annotations

try:
    import lerobot  # noqa: F401
except ImportError as error:
    raise ImportError("lerobot_policy_gemvlm is a policy of LeRobot: pip install lerobot") from error

from lerobot_policy_gemvlm.configuration_gemvlm import GemvlmConfig
from lerobot_policy_gemvlm.modeling_gemvlm import GemvlmPolicy
from lerobot_policy_gemvlm.processor_gemvlm import make_gemvlm_pre_post_processors

__all__ = ["GemvlmConfig", "GemvlmPolicy", "make_gemvlm_pre_post_processors"]
