"""Every metric of the node, declared once.

Labels never hold patient data: AE titles, outcomes, stages, backends, versions only.
Tests pass their own registry.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_SLOW = (0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0)
_PROBABILITY = tuple(step / 20 for step in range(1, 21))


class Metrics:
    """The node's metrics on one registry."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry if registry is not None else CollectorRegistry()
        self.instances_received = Counter(
            "dicomnode_instances_received",
            "Instances that a peer sent, by what became of them",
            ["calling_ae", "outcome"],
            registry=self.registry,
        )
        self.store_duration = Histogram(
            "dicomnode_store_duration_seconds",
            "From C-STORE-RQ to C-STORE-RSP",
            buckets=_FAST,
            registry=self.registry,
        )
        self.stage_duration = Histogram(
            "dicomnode_stage_duration_seconds",
            "Time in one stage of the pipeline",
            ["stage"],
            buckets=_FAST,
            registry=self.registry,
        )
        self.turnaround = Histogram(
            "dicomnode_turnaround_seconds",
            "From the last image of a study received to its report accepted by a destination",
            buckets=_SLOW,
            registry=self.registry,
        )
        self.inference_requests = Counter(
            "dicomnode_inference_requests",
            "Requests to model servers, by gRPC status code",
            ["backend", "code"],
            registry=self.registry,
        )
        self.inference_in_flight = Gauge(
            "dicomnode_inference_in_flight",
            "Requests that wait for a model server's answer",
            ["backend"],
            registry=self.registry,
        )
        self.backend_ejected = Gauge(
            "dicomnode_backend_ejected",
            "1 while a model server is left out: until it first says AVAILABLE, after failures",
            ["backend"],
            registry=self.registry,
        )
        self.jobs = Gauge(
            "dicomnode_jobs", "Jobs in the queue by state", ["state"], registry=self.registry
        )
        self.deliveries = Counter(
            "dicomnode_deliveries",
            "Attempts to deliver a document, by what the destination answered",
            ["destination", "outcome"],
            registry=self.registry,
        )
        self.prediction_probability = Histogram(
            "dicomnode_prediction_probability",
            "Probability of the positive class",
            ["model_version"],
            buckets=_PROBABILITY,
            registry=self.registry,
        )
        self.not_evaluated = Counter(
            "dicomnode_not_evaluated",
            "Images that the model was not asked about, by reason",
            ["reason"],
            registry=self.registry,
        )
        self.store_free_bytes = Gauge(
            "dicomnode_store_free_bytes",
            "Bytes free on the store's file system",
            registry=self.registry,
        )
        self.store_minimum_free_bytes = Gauge(
            "dicomnode_store_minimum_free_bytes",
            "storage.minimum_free_bytes: with less than this free, images are refused",
            registry=self.registry,
        )
        self.associations = Gauge(
            "dicomnode_associations",
            "Associations that are open now",
            registry=self.registry,
        )
        self.associations_rejected = Counter(
            "dicomnode_associations_rejected",
            "Associations that were rejected or aborted by this node, by reason",
            ["reason"],
            registry=self.registry,
        )
