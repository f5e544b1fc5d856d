"""JSON: an array of objects, or one object a line, read and written with every byte between the fields kept."""
