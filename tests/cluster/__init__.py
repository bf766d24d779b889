"""Kubernetes without Kubernetes: what a manifest says, carried out on this machine.

A `Network` is a switch in a network namespace of its own, with a name server; a `Pod` is a
process with its own network namespace and address, process ids, file system and user, built
from a pod spec; a `Job` is the controller of one Indexed Job. Needs root, iproute2,
util-linux and dnsmasq; nothing outside its own namespaces is changed.
"""
