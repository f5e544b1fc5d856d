"""WebDataset: tars whose files make up the rows. They are only read."""
