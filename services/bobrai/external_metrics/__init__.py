"""Shows Kubernetes' autoscaler how much waits in each queue, as the API ``external.metrics.k8s.io/v1beta1``.

In: requests that the Kubernetes API server passes on, and the figures that the dispatchers measured. Out: a backlog per
queue, or an error that says that it is unknown; never a guess. Knows PostgreSQL and Kubernetes, no broker, no handlers.
"""
