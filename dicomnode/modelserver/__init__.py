"""The model server that comes with the node: TensorFlow Serving's API on our own.

For machines that have a tensorflow wheel but no TensorFlow Serving (there is no arm64
image of it). The same flags, the same calls (gRPC PredictionService and ModelService,
REST `/v1/models/...`, Prometheus page) and the same life cycle of a version: found on
disk, loaded, warmed up, available, drained, unloaded.

`options` reads the flags, `versions` decides which versions are wanted, `manager` makes
it so, `servable` alone imports tensorflow, `batching` merges requests, `predict` answers
one, `grpc_api` and `rest_api` are the two doors, `main` ties them together. A process of
its own; the node talks to it only through sockets.
"""
