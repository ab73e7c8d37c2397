"""The client that the JetStream connectors and the JetStream store share: how to reach a server, streams and consumers.

`wire` is the one module that reaches into nats-py. Nothing here knows of pipelines, operators or state.
"""
