"""Transfer learning as a service: an HTTP API and a page over the same verbs, for a team of its own."""
