"""The words that TensorFlow Serving speaks on the wire, in a proto of our own.

`serving.proto` holds the subset of TensorFlow Serving's messages that the node and its
model server use: the same field numbers and types, under a package name of our own, so
that it loads beside the official stubs in one process and brings no tensorflow with it.
`generated/` is compiled from it (`python -m dicomnode.wire.compile`), `methods` names
the calls, `tensors` turns numpy arrays into TensorProto and back.

No network, no files, no clock; knows nothing of the node.
"""
