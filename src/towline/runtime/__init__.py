"""Where sessions meet the event loop: pump, channel, listener, dialer, lanes.

In: transports that push bytes, services that want channels. Out: channels for services, events for the house.
May import: base, protocol, transports; asyncio and threads live here.
Must not: know people, keys, files, jobs or rooms; who may come in is an argument.
"""
