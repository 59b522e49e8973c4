"""One file a format: path -> recordings, or DataError."""
