"""What can be told when a DAG is parsed of a task that Airflow maps: that several instances would write one output, and
what is wrong with the parameters of one."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice, product
from typing import TYPE_CHECKING, Any

from clip_operator.errors import RequestError
from clip_operator.operators.parameters import is_unset

if TYPE_CHECKING:
    from airflow.sdk.definitions.mappedoperator import MappedOperator, OperatorPartial

    from clip_operator.operators.image_clip_evaluator import ImageCLIPEvaluatorOperator

# Airflow's own default for how many instances a task may have.
_MOST_LOOKED_AT = 1024

_NAME_THE_OUTPUT = ("cache_path", "file_name_prefix", "cache_type", "step", "shard", "plan")

_EMBEDDINGS = "embeddings_path"


class CheckedPartial:
    """What ``partial`` of an operator returns, with a look at what its instances would write.

    Where that takes a template or another task's result it cannot be told yet, and the instances tell it themselves.

    :param partial: Airflow's own.
    :param operator: what is mapped. What others than the package's parameters come to is not known here.
    """

    def __init__(self, partial: OperatorPartial, operator: type[ImageCLIPEvaluatorOperator]) -> None:
        self._partial = partial
        self._operator = operator

    def expand(self, **mapped: Any) -> MappedOperator:
        """Map over all combinations of the values, as Airflow does.

        :raises RequestError: some combinations differ in nothing that names the output, or share a folder for
            embeddings, or one is wrong.
        """
        given = {**self._partial.kwargs, **mapped}
        alike = [
            name
            for name, values in mapped.items()
            if name in self._operator.template_fields and name not in _NAME_THE_OUTPUT and not _is_single(values)
        ]
        if alike and _can_be_told(given):
            raise _one_output(f"{' and '.join(alike)} to several values, which differ in nothing that names the output")
        several = [name for name, values in mapped.items() if name != _EMBEDDINGS and not _is_single(values)]
        if several and _embeddings_of(given) is not None and "shard" not in mapped:
            raise _one_folder(f"{' and '.join(several)} to several values, with one embeddings_path for all")
        for instance in instances_of(mapped):
            self._check({**self._partial.kwargs, **instance})
        return self._partial.expand(**mapped)

    def expand_kwargs(self, kwargs: Any, *, strict: bool = True) -> MappedOperator:
        """Map over sets of parameters, as Airflow does.

        :raises RequestError: two of them name the same output, or the same folder for embeddings, or one is wrong.
        """
        instances = kwargs if isinstance(kwargs, Sequence) else ()
        seen: dict[str, int] = {}
        folders: dict[str, int] = {}
        for index, own in enumerate(instances):
            given = {**self._partial.kwargs, **own} if isinstance(own, Mapping) else {}
            if _can_be_told(given):
                target = repr([given.get(name) for name in _NAME_THE_OUTPUT])
                if (first := seen.setdefault(target, index)) != index:
                    raise _one_output(f"instances {first} and {index} to parameters that name the same output")
            folder = _embeddings_of(given)
            if folder is not None and (first := folders.setdefault(folder, index)) != index:
                raise _one_folder(f"instances {first} and {index} to the same embeddings_path")
        for own in instances:
            if isinstance(own, Mapping):
                self._check({**self._partial.kwargs, **own})
        return self._partial.expand_kwargs(kwargs, strict=strict)

    def _check(self, given: Mapping[str, Any]) -> None:
        """Check the parameters of one instance, as far as they are known."""
        from clip_operator.operators.asked import check_given

        own = {name: value for name, value in given.items() if name in self._operator.template_fields}
        check_given(self._operator, own, given.get("dag"))


def instances_of(mapped: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield what each instance of a mapped task is given, all combinations of the values; where another task's result
    is mapped that stands for its values."""
    values = [
        list(each) if isinstance(each, Collection) and not isinstance(each, str) else [each] for each in mapped.values()
    ]
    for chosen in islice(product(*values), _MOST_LOOKED_AT):
        yield dict(zip(mapped, chosen, strict=True))


def _can_be_told(given: Mapping[str, Any]) -> bool:
    """Tell whether parameters name an output as they stand. A template may hold the instance's index."""
    return "cache_path" in given and not any("{" in str(given.get(name)) for name in _NAME_THE_OUTPUT)


def _embeddings_of(given: Mapping[str, Any]) -> str | None:
    """Return what stands for the folder for embeddings, where that is known and the same for every instance."""
    folder = given.get(_EMBEDDINGS)
    return None if is_unset(folder) or "{" in str(folder) else str(folder).strip().rstrip("/")


def _is_single(values: Any) -> bool:
    return isinstance(values, Collection) and len(values) <= 1


def _one_output(mapped: str) -> RequestError:
    return RequestError(
        f"this task maps {mapped}: each would write over what another wrote. Give each instance a cache_path or "
        "file_name_prefix of its own, with expand_kwargs(), or have one of them hold {{ ti.map_index }}"
    )


def _one_folder(mapped: str) -> RequestError:
    return RequestError(
        f"this task maps {mapped}: each would write its embeddings over another's. Map embeddings_path, too, with "
        "expand_kwargs(), or have it hold {{ ti.map_index }}"
    )
