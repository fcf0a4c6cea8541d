"""What the tests share: small data and finished folders, stand-ins, processes."""
