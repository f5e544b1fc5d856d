"""Templates of a task: what is wrong with them as they stand, and what they come to with the defaults of its Params."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Set
from typing import TYPE_CHECKING, Any

import jinja2
from airflow.sdk import Context
from jinja2 import meta, nodes
from jinja2.defaults import DEFAULT_NAMESPACE

from clip_operator.operators.asked import is_known, marks_of
from clip_operator.operators.parameters import is_path, is_unset

if TYPE_CHECKING:
    from airflow.sdk import DAG

# Behind these a name that is not there is no error.
_GUARDS = {"default", "d", "defined", "undefined"}

_OF_MAPPINGS = set(dir(dict))


class Unknown:
    """What only a run tells."""

    def __repr__(self) -> str:
        return "?"


UNKNOWN = Unknown()


class NoDefault(Exception):
    """A Param has no default that could be used: whoever triggers the DAG gives it."""


class Defaults(dict[str, Any]):
    """The defaults of Params, as templates see them."""

    def __getitem__(self, name: str) -> Any:
        value = super().__getitem__(name)
        if value is UNKNOWN:
            raise NoDefault
        return value

    def get(self, name: str, default: Any = None) -> Any:
        """Return a default, as templates ask for it."""
        try:
            return self[name]
        except KeyError:
            return default


class Templates:
    """The templates of one task.

    :param task: an operator, mapped or not.
    :param params: the defaults of its Params; ``UNKNOWN`` where there is none.
    """

    def __init__(self, dag: DAG, task: Any, params: Mapping[str, Any]) -> None:
        self._env: jinja2.Environment = task.get_template_env(dag)
        self._marks = marks_of(dag)
        self._params = params
        self._is_scheduled = dag.schedule is not None
        self._names = {*Context.__annotations__, *self._env.globals}

    def problems(self, value: Any) -> Iterator[str]:
        """Yield what is wrong with the templates in a value."""
        for text in texts_in(value):
            if not is_known(text, self._marks):
                yield from self._problems(text)

    def names_in(self, value: Any) -> set[str]:
        """Return the names that the templates in a value use; of one that cannot be read, ``?``."""
        names: set[str] = set()
        for text in texts_in(value):
            try:
                names |= meta.find_undeclared_variables(self._env.parse(text))
            except jinja2.TemplateError:
                names.add("?")
        return names

    def rendered(self, value: Any) -> Any:
        """Return what a value comes to; ``UNKNOWN`` where that depends on the run."""
        if isinstance(value, Mapping):
            return {key: self.rendered(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.rendered(item) for item in value]
        if isinstance(value, Set):
            return value if is_known(value, self._marks) else UNKNOWN
        if isinstance(value, str) or is_path(value):
            return value if is_known(value, self._marks) else self._text(str(value))
        return value if is_known(value) or hasattr(type(value), "openapi_types") else UNKNOWN

    def _text(self, text: str) -> Any:
        try:
            template = self._env.from_string(text)
            names = meta.find_undeclared_variables(self._env.parse(text))
            # What others' macros do, only a run may have them do.
            if names - {"params"} - DEFAULT_NAMESPACE.keys() or names & self._own:
                return UNKNOWN
            context = template.new_context({"params": Defaults(self._params)})
            value = "".join(str(part) for part in template.root_render_func(context))
        except Exception:  # of a template that is wrong, of a filter of somebody's, of a Param without a default
            return UNKNOWN
        # Whoever triggers a DAG without a schedule is there to fill in what is empty.
        return UNKNOWN if is_unset(value) and not self._is_scheduled else value

    @property
    def _own(self) -> set[str]:
        """What the DAG has put in the place of Jinja's own functions."""
        return {name for name, value in DEFAULT_NAMESPACE.items() if self._env.globals.get(name) is not value}

    def _problems(self, text: str) -> Iterator[str]:
        try:
            tree = self._env.parse(text)
            self._env.compile(text)
        except jinja2.TemplateSyntaxError as error:
            yield f"the template {text!r:.80} cannot be read: {error.message}"
            return
        if not issubclass(self._env.undefined, jinja2.StrictUndefined) or _is_guarded(tree):
            return
        for name in sorted(meta.find_undeclared_variables(tree) - self._names):
            yield f"the template {text!r:.80} uses {name!r}, which neither Airflow nor the DAG has"
        for name in sorted(_params_in(tree) - self._params.keys() - _OF_MAPPINGS):
            yield f"the template {text!r:.80} uses the Param {name!r}, which the DAG has not; add it to its params"


def texts_in(value: Any) -> Iterator[str]:
    """Yield the texts that Airflow renders in a value."""
    if isinstance(value, str) or is_path(value):
        yield str(value)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from texts_in(item)
    elif isinstance(value, list | tuple | Set):
        for item in value:
            yield from texts_in(item)
    elif hasattr(type(value), "openapi_types"):
        for name in type(value).openapi_types:
            yield from texts_in(getattr(value, name))


def _is_guarded(tree: nodes.Template) -> bool:
    """Tell whether a template asks anywhere whether something is there."""
    asked = {node.name for kind in (nodes.Filter, nodes.Test) for node in tree.find_all(kind)}
    compared = {operand.op for operand in tree.find_all(nodes.Operand)}
    return bool(asked & _GUARDS) or bool(compared & {"in", "notin"})


def _params_in(tree: nodes.Template) -> set[str]:
    attributes = {(node.node, node.attr) for node in tree.find_all(nodes.Getattr)}
    items = {(node.node, node.arg.value) for node in tree.find_all(nodes.Getitem) if isinstance(node.arg, nodes.Const)}
    pairs = attributes | {(node, str(name)) for node, name in items}
    return {name for node, name in pairs if isinstance(node, nodes.Name) and node.name == "params"}


def line_of(error: str) -> str:
    """Return what a traceback says at its end, behind its last indented line, as one line."""
    lines = error.strip().splitlines()
    ends = max((at for at, line in enumerate(lines[:-1], 1) if line.startswith(" ")), default=0)
    said = " ".join(line.strip() for line in lines[ends:] if line.strip())
    return re.sub(r"^[\w.]*\.(?=\w+:)", "", said) if said else "the file cannot be imported"
