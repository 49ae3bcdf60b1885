"""What listens can be entered once, and only inside its block can it be started."""

import pytest
import trio

from wsclient.testing import FaultProxy, FaultServer
from wsclient.testing._listening import Listening


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


async def test_who_comes_is_let_in(autojump_clock, network, open_stream):
    async with FaultServer(network=network) as server:
        await open_stream(server)
        await open_stream(server)

        assert 2 == len(server.connections)


async def test_start_of_what_listens_does_nothing(listening, autojump_clock, open_stream):
    async with listening:
        await listening.start()
        await listening.stop()
        await listening.stop()
        with pytest.raises(ConnectionRefusedError):
            await open_stream(listening)


async def test_attempt_that_comes_as_the_door_closes_is_refused(autojump_clock):
    refused = trio.Event()

    class Door:
        """Closes while an attempt is being taken, as a socket can."""

        is_closed = False
        refuse = staticmethod(refused.set)

        async def prepare(self):
            pass

        def open(self):
            return self

        async def wait_attempt(self):
            self.is_closed = True
            return self

        def close(self):
            pass

        def give_up(self):
            pass

    class Host(Listening):
        async def _welcome(self, attempt, nursery):
            raise AssertionError

        def _cut_all(self):
            pass

    async with Host(Door()):
        await refused.wait()
