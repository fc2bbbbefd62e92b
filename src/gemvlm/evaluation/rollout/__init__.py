"""Policies in closed loop: what is played (`protocol`), where (`lane`, `pool`), one line for each episode (`run`).

    from gemvlm.evaluation.rollout.protocol import metaworld_protocol
    from gemvlm.evaluation.rollout.run import Player, run_rollout

Nothing is imported here: processes of workers need `lane` and its simulator, and neither torch nor a policy.
"""
