"""A student leaves: exported files verified on the test split, their latency where they will run, and which to ship."""
