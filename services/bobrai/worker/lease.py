"""Under which id this worker claims now; None while it has no row."""


class Lease:
    """The main loop's view of the lease that the heartbeat's thread keeps."""

    def __init__(self) -> None:
        self.worker_id: int | None = None
