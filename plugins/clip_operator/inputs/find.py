"""Tells from a URI which kind of input it names."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import fields, replace

from clip_operator.dialect import USUAL, Dialect
from clip_operator.errors import RequestError
from clip_operator.inputs.delta import live_files
from clip_operator.inputs.input import Input
from clip_operator.inputs.json_content import as_it_is
from clip_operator.inputs.listing import WILDCARDS, files_in_folder, files_matching, one_type_of
from clip_operator.inputs.many_files import ManyFiles
from clip_operator.inputs.one_parquet import OneParquet
from clip_operator.inputs.one_text import OneText
from clip_operator.inputs.partitions import partitions_of
from clip_operator.storage import (
    AccessDenied,
    ObjectInfo,
    ObjectNotFound,
    Storage,
    dataset_name,
    display,
    name_of,
    parent,
)
from clip_operator.tables import DELIMITED, Partitions, TableFormat, file_type_of


def find_input(storage: Storage, uri: str, dialect: Dialect = USUAL) -> Input:
    """Return the input that a URI names: an object, a folder (``…/``), a pattern (``…/part-*.parquet``) or ``hf:…``.

    In a pattern ``*`` stands for any characters and ``?`` for one, in the last part of the URI only. An object whose
    name really has such characters is taken as what it is.

    :param dialect: how it is written, should it be CSV or TSV.
    :raises RequestError: the URI names no table, or has wildcards where they are not understood; or there is a dialect
        and it is neither CSV nor TSV.
    :raises JobError: there is nothing, or what is there is not one table.
    """
    found = _found(storage, uri)
    if dialect == USUAL:
        return found
    if isinstance(found, ManyFiles | OneText) and found.file_type.format in DELIMITED:
        return replace(found, file_type=found.file_type.written_in(dialect))
    said = ", ".join(field.name for field in fields(dialect) if getattr(dialect, field.name) not in (None, ()))
    raise RequestError(
        f"{display(uri)} is {found.file_type}, and {said} is said of csv and tsv only; leave it out, or name another "
        "input"
    )


def _found(storage: Storage, uri: str) -> Input:
    if dataset_name(uri) is not None:
        # Imported here: nobody else needs the package behind it, which takes seconds to import.
        from clip_operator.inputs.hugging_face import find_dataset

        return find_dataset(uri)
    if uri.endswith("/"):
        if (table := live_files(storage, uri)) is not None:
            return _many(storage, uri, *table)
        files = files_in_folder(storage, uri)
        return _many(storage, uri, files, partitions_of(uri, files))
    if WILDCARDS.search(uri):
        with suppress(ObjectNotFound, AccessDenied):
            return _one(storage, storage.stat(uri))
        if WILDCARDS.search(parent(uri)):
            raise RequestError(
                f"{display(uri)}: wildcards are understood in the last part of a URI only; name one folder, or a "
                "pattern of files in one folder, such as s3://bucket/folder/part-*.parquet"
            )
        files = files_matching(storage, uri)
        return _many(storage, uri, files)
    try:
        file_type_of(uri)
    except RequestError as error:
        hint = "" if "." in name_of(uri) else " To read all files of a folder, let the input end with a slash."
        raise RequestError(f"{error}{hint}") from None
    return _one(storage, _stat(storage, uri))


def default_image_root(uri: str) -> str:
    """Return the folder that relative image paths in an input start from, where nothing else is said."""
    if (dataset := dataset_name(uri)) is not None:
        # A folder, or a name at the hub, where there is none: images then stand in the rows.
        return dataset.partition(":")[0]
    return parent(uri)


def _stat(storage: Storage, uri: str) -> ObjectInfo:
    try:
        return storage.stat(uri)
    except ObjectNotFound as error:
        # What Spark, Dask and others call a Parquet file is a folder of that name.
        if next(iter(storage.list(f"{uri}/")), None) is None:
            raise
        raise ObjectNotFound(
            f"{error}, but there are objects below it; to read them as one table, let the input end with a slash: "
            f"{display(uri)}/"
        ) from None


def _many(storage: Storage, uri: str, files: list[ObjectInfo], partitions: Partitions | None = None) -> Input:
    file_type = as_it_is(storage, files, one_type_of(uri, files))
    return ManyFiles(storage, ObjectInfo.of_many(uri, files), file_type, tuple(files), partitions)


def _one(storage: Storage, info: ObjectInfo) -> Input:
    file_type = file_type_of(info.uri)
    if file_type.format is TableFormat.TAR:
        return ManyFiles(storage, info, file_type, (info,))
    if file_type.format is TableFormat.PARQUET:
        return OneParquet(storage, info, file_type)
    return OneText(storage, info, as_it_is(storage, [info], file_type))
