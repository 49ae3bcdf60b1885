"""What the close codes of known services mean."""

from __future__ import annotations

import pytest

import wsclient
from wsclient.errors import ChannelFailed, ConnectionClosed
from wsclient.events import ConnectionReady, LossKind
from wsclient.options import RetryPolicy
from wsclient.session import (
    PRESETS,
    Fatal,
    Loss,
    NextEndpoint,
    Phase,
    Retry,
    RetryFreshAuth,
    classify,
)
from wsclient.testing import NONE, Fault, FaultServer

ERROR = ConnectionClosed(None)

# What each service says; a code that it does not name is the default's.
TABLE = {
    "discord": {
        Retry: [*range(4000, 4004), 4005, 4007, 4008, 4009],
        Fatal: [4004, 4010, 4011, 4012, 4013, 4014],
        None: [4006, 4015, 1000, 1006],
    },
    "graphql-transport-ws": {
        Fatal: [4400, 4401, 4406, 4409, 4429],
        RetryFreshAuth: [4403],
        Retry: [4408],
        None: [4500, 4404, 1000, 1011],
    },
    "pusher": {
        Fatal: [4000, 4001, 4099],
        NextEndpoint: [4100, 4199],
        Retry: [4200, 4299],
        None: [4300, 1006],
    },
    "centrifugo": {
        Retry: [3000, 3001, 3003, 3005, 3012, 3499, 4000, 4499],
        Fatal: [3500, 3503, 3999, 4500, 4999],
        None: [1000, 1006, 1013],
    },
    "obs-websocket": {Fatal: [4009, 4010, 4011, 4012], None: [4000, 4002, 4008, 1006]},
    "twitch-eventsub": {Retry: [4000, *range(4002, 4008)], Fatal: [4001], None: [4008]},
}
ROWS = [
    pytest.param(service, code, decision, id=f"{service} {code}")
    for service, decisions in TABLE.items()
    for decision, codes in decisions.items()
    for code in codes
]


def closed(code, repeated=1):
    return Loss(kind=LossKind.CLOSED, error=ERROR, code=code, repeated=repeated)


def test_s4_4_every_preset_is_in_the_table():
    assert set(TABLE) == set(PRESETS)
    assert all(name == preset.service for name, preset in PRESETS.items())
    assert all(preset.source.startswith("https://") for preset in PRESETS.values())


@pytest.mark.parametrize(("service", "code", "decision"), ROWS)
@pytest.mark.parametrize("phase", Phase)
def test_s4_4_a_preset_decides_as_the_service_says(service, code, decision, phase):
    decided = PRESETS[service](closed(code), phase)
    if decision is None:
        assert classify(closed(code), phase) == decided
    else:
        assert decision is type(decided)
        assert decided.reason.startswith(f"{service}: {code} ")


@pytest.mark.parametrize("service", PRESETS)
def test_s4_4_what_is_no_close_code_is_left_to_the_default(service):
    refused = Loss(kind=LossKind.REJECTED, error=ERROR, status=404, code=4004)

    assert classify(refused, Phase.STEADY) == PRESETS[service](refused, Phase.STEADY)


@pytest.mark.parametrize(("phase", "times"), [(Phase.STARTUP, 1), (Phase.STEADY, 2)])
def test_s4_4_fresh_credentials_are_tried_as_often_as_after_1008(phase, times):
    preset = PRESETS["graphql-transport-ws"]
    decided = [type(preset(closed(4403, repeated), phase)) for repeated in range(1, times + 2)]

    assert [RetryFreshAuth] * times + [Fatal] == decided


def test_after_a_code_that_asks_for_it_the_wait_is_at_the_cap():
    assert (15.25, 30.25) == PRESETS["pusher"](closed(4100), Phase.STEADY).delay


async def test_s4_4_a_policy_takes_a_preset(autojump_clock, network):
    policy = RetryPolicy(classify=PRESETS["discord"])
    async with FaultServer([Fault.close(4009), Fault.close(4004)], network=network) as server:
        with pytest.raises(ChannelFailed, match="discord: 4004 authentication failed"):
            async with wsclient.open_channel(server.url, retry=policy, observers=()) as channel:
                await channel.receive()

    assert 2 == len(server.connections)


async def test_s4_4_other_codes_in_between_do_not_spend_the_patience_with_one(
    autojump_clock, network, recorder
):
    policy = RetryPolicy(classify=PRESETS["graphql-transport-ws"])
    story = [Fault.close(code) for code in (4500, 4500, 4500, 4403, 4403)]
    async with (
        FaultServer([*story, NONE], network=network) as server,
        wsclient.open_channel(server.url, retry=policy, observers=[recorder]),
    ):
        await recorder.wait_for(ConnectionReady, count=6)
