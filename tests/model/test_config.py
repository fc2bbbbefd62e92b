"""The configuration is plain data."""

from __future__ import annotations

import json

import pytest

from gemvlm.model.config import GemConfig


def test_json_round_trip(config, regression_config):
    for one in (config, regression_config):
        assert GemConfig.from_dict(json.loads(json.dumps(one.to_dict()))) == one


def test_fields_are_checked_by_name(config):
    values = config.to_dict()
    with pytest.raises(ValueError, match=r"unexpected fields \['shifts'\]"):
        GemConfig.from_dict(values | {"shifts": 3.0})
    with pytest.raises(ValueError, match=r"missing fields \['shift'\]"):
        GemConfig.from_dict({key: value for key, value in values.items() if key != "shift"})
    with pytest.raises(ValueError, match=r"Encoding: unexpected fields \['colour'\]"):
        GemConfig.from_dict(values | {"encoding": {"name": "log", "colour": 1}})
    with pytest.raises(ValueError, match="kind 'gan' is not one of"):
        GemConfig.from_dict(values | {"generator": {"kind": "gan"}})
    with pytest.raises(ValueError, match="condition_dropout"):
        GemConfig.from_dict(values | {"condition_dropout": 2.0})
