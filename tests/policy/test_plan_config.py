import dataclasses
import subprocess
import sys

import numpy as np
import pytest

import stable_worldmodel as swm
from stable_worldmodel.errors import ContractError
from stable_worldmodel.policy import BasePolicy, ExpertPolicy, PlanConfig, Policy
from stable_worldmodel.protocols import Policy as PolicyProtocol


def test_plain_policies_do_not_import_torch():
    code = (
        "import sys; from stable_worldmodel.policy import ExpertPolicy, PlanConfig, RandomPolicy;"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_plan_config_is_frozen_and_counts_env_steps():
    config = PlanConfig(5, 2, 3, 4, False)
    assert config.plan_len == 20
    assert config.history_capacity == 9
    assert PlanConfig(5, 5).warm_start
    assert swm.PlanConfig is PlanConfig
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.horizon = 3


@pytest.mark.parametrize("name", ["horizon", "receding_horizon", "history_len", "action_block"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True, None])
def test_sizes_are_integers_of_at_least_one(name, value):
    with pytest.raises(ContractError, match=name):
        PlanConfig(**{"horizon": 5, "receding_horizon": 1, name: value})


def test_numpy_integers_are_integers():
    assert PlanConfig(np.int64(5), np.int32(2)).plan_len == 5


def test_no_more_is_executed_than_planned_and_no_more_looked_back_on_than_kept():
    with pytest.raises(ContractError, match="receding_horizon"):
        PlanConfig(horizon=2, receding_horizon=3)
    with pytest.raises(ContractError, match="history_max_len"):
        PlanConfig(2, 1, history_len=3, action_block=5, history_max_len=10)
    assert PlanConfig(2, 1, history_len=3, action_block=5, history_max_len=20).history_capacity == 20


def test_base_policies_keep_keyword_arguments_and_define_no_action():
    policy = BasePolicy(level=3)
    assert (policy.level, policy.env, policy.type) == (3, None, "base")
    assert Policy is BasePolicy
    assert isinstance(policy, PolicyProtocol)
    policy.set_env("pool")
    assert policy.env == "pool"
    with pytest.raises(NotImplementedError, match="get_action"):
        policy.get_action({})
    expert = ExpertPolicy(noise=0.1)
    assert (expert.noise, expert.type) == (0.1, "expert")
    with pytest.raises(NotImplementedError, match="ExpertPolicy"):
        expert.get_action({}, goal_obs=None)
