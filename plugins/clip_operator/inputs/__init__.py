"""What a request's input is, which version of it stands there, how it can be cut, and its way to the local disk.

An input is one table, wherever its rows lie: in one object; in many part files, given as a folder (``s3://b/x/``) or a
pattern (``s3://b/x/part-*.parquet``), in the order of their names; or in a Hugging Face data set (``hf:NAME``).

::

    found = find_input(storage, "s3://bucket/pairs/")
    spans = found.cut(65536)                   # where shards may begin
    with found.fetch(folder, shard).open(["image_path", "text"]) as table:   # only what the shard needs
        ...
"""

from clip_operator.inputs.apart import check_outputs_apart
from clip_operator.inputs.find import default_image_root, find_input
from clip_operator.inputs.input import Input, LocalInput, columns_of_folders, fragment_of

__all__ = [
    "Input",
    "LocalInput",
    "check_outputs_apart",
    "columns_of_folders",
    "default_image_root",
    "find_input",
    "fragment_of",
]
