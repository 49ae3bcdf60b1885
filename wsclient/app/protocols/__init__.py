"""Protocols of services, as a channel needs to know them: one file each.

Each is computation only, and takes whatever a server sends: what it does not understand is not its
own, and goes to whoever receives from the channel.
"""

from ._graphql_transport_ws import GraphqlTransportWs
from ._json_pub_sub import JsonPubSub
from ._json_rpc import JsonRpc

__all__ = ["GraphqlTransportWs", "JsonPubSub", "JsonRpc"]
