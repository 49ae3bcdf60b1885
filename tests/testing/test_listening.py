"""What listens can be entered once, and only inside its block can it be started."""

import pytest

from wsclient.testing import FaultProxy, FaultServer


@pytest.fixture(params=["server", "proxy"])
def listening(request, network):
    if request.param == "server":
        return FaultServer(network=network)
    return FaultProxy("ws://server.test", network=network)


async def test_start_outside_the_block_is_a_mistake(listening, autojump_clock):
    with pytest.raises(RuntimeError, match=r"runs inside its `async with` block only"):
        await listening.start()


async def test_second_entry_is_a_mistake(listening, autojump_clock):
    async with listening:
        pass
    with pytest.raises(RuntimeError, match="can be entered once"):
        async with listening:
            pass


async def test_start_of_what_listens_does_nothing(listening, autojump_clock, open_stream):
    async with listening:
        await listening.start()
        await listening.stop()
        await listening.stop()
        with pytest.raises(ConnectionRefusedError):
            await open_stream(listening)
