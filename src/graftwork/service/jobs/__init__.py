"""Work that takes longer than a request: queued, leased to a worker, told as events."""
