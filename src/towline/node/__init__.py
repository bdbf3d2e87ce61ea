"""A node: the house put together for serving.

In: a configuration, connections from the listeners. Out: services run for people, an audit trail, a clean drain.
May import: services, runtime, transports, journal, store, trust, protocol, base. Must not: import client, lab or cli.
"""

from towline.node.config import NodeConfig
from towline.node.node import Node
from towline.services.files.shares import Share

__all__ = ["Node", "NodeConfig", "Share"]
