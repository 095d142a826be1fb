"""The page: rendered on the server, the same verbs as the API."""
