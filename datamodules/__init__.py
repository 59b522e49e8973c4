"""Where clips come from: the in-memory form, readers, cleaning, the embedded synthetic set and the data module."""
