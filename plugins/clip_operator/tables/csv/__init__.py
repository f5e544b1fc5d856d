"""CSV (RFC 4180), read and written with every byte between the fields kept."""
