"""The operator: reads step n of a data set, has it scored, and hands the name of the new column to the next task."""

from __future__ import annotations

import copy
import inspect
import threading
from collections.abc import Collection, Mapping, Sequence
from numbers import Number
from typing import TYPE_CHECKING, Any, ClassVar, cast

from airflow.providers.common.compat.sdk import conf, mask_secret
from airflow.sdk import BaseOperator, BaseOperatorLink

from clip_operator.errors import JobError, RequestError
from clip_operator.operators.links import ReportLink, ScoredStepLink
from clip_operator.operators.mapping import CheckedPartial
from clip_operator.operators.parameters import as_written, connection_in, own_parameters
from clip_operator.operators.task_instance import (
    connection_of,
    parameters_of,
    requester_of,
    told_to_airflow,
)
from clip_operator.redaction import holds_secret

if TYPE_CHECKING:
    import jinja2
    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Context

    from clip_operator.operators.aws import AwsConnection
    from clip_operator.operators.execution import Execution
    from clip_operator.operators.execution.kubernetes import KubernetesPod
    from clip_operator.operators.limits import Limits
    from clip_operator.operators.parameters import Place
    from clip_operator.operators.work import Work
    from clip_operator.proof.manifest import EvaluationManifest
    from clip_operator.request import EvaluationRequest
    from clip_operator.storage import Storage


class ImageCLIPEvaluatorOperator(BaseOperator):
    """Score how well each row's image and text agree with a CLIP model, and write the rows with the scores as the
    next step of the data set.

    Reads step *n*: ``first_entry_file_name`` if n is 0, else ``{cache_path}/{file_name_prefix}_step{n}.{cache_type}``.
    Writes step *n+1* with one column more, and beside it a manifest that proves what was done. Rows are never lost,
    reordered or altered; a row that cannot be scored gets null and a reason. If the manifest shows that the same input
    was scored by the same request with the same model, the task succeeds at once.

    Returns the list of score columns, ``["clip_score"]``. Further XComs: ``output_path`` (URI), ``output_step``
    (int), ``summary`` (row counts, statistics of the scores, calibration, filtered step, gates, model and device) and
    ``manifest`` (the manifest's ``uri``, and the ``aws_conn_id`` that reads it). Each ``AssetAlias`` among the
    ``outlets`` gets an asset event of the output, with the summary as its extra.

    Each instance of a mapped task needs an output of its own, so ``cache_path`` or ``file_name_prefix`` is mapped, too.

    All parameters but the operator's own (``task_id``, …) are templated; what is blank, or the word ``None``, counts as
    None. Places are text, paths, or Airflow's ``ObjectStoragePath``; ``s3://connection@bucket/key`` names the
    connection, too.

    :param first_entry_file_name: URI of step 0: ``s3://``, another object store, or a local path. The suffix names
        the format: ``jsonl``, ``json``, ``csv``, ``tsv`` (each also ``.gz``, ``.zst``, ``.bz2`` or ``.xz``) or
        ``parquet``. May be left out for ``step >= 1``.
    :param cache_path: URI of the folder that holds the steps from 1 on.
    :param file_name_prefix: what their names start with. Default: ``dataflow_cache_step``.
    :param cache_type: their format, by suffix. Default: ``jsonl``.
    :param step: the step to read: a number, or ``"latest"`` for the highest complete step that this task has not
        written itself in this run. Default: 0.
    :param input_image_key: column that holds or names the image: a path relative to ``image_root``, a URI, a ``data:``
        URI, or an image's bytes, also in base64. May be a path into a column, as in ``conversation[0].value``.
        Default: ``image_path``.
    :param input_text_key: column that holds the caption, or a path into one. Default: ``text``.
    :param delimiter: of CSV and TSV, the character between two cells. The output is written in the same way, as for the
        next three. Default: a comma, in TSV a tab; or what Excel's first line ``sep=;`` says.
    :param quotechar: of CSV and TSV, the character around cells that hold others' marks, or ``none`` where quotes are
        text. Default: a double quote.
    :param escapechar: of CSV and TSV, the character that makes the one behind it text, as a backslash. Default: none.
    :param encoding: of CSV and TSV, as in ``utf-16-le`` or ``cp1252``. Default: UTF-8, or UTF-16 where a byte order
        mark says so.
    :param column_names: the columns of a CSV or TSV file without a header. The output has none, either; its columns are
        these and then those that are added. Default: the first line names the columns.
    :param output_key: column to add. Default: ``clip_score``.
    :param aggregate: what a row gets that has several images or several captions in a list, each image with each
        caption being a pair: the ``mean``, ``max`` or ``min`` of the pairs' scores, or, with ``all``, a list of them,
        image by image. Lists of one are no question. Default: such a row has no score.
    :param model_name: any CLIP-family checkpoint that transformers loads: a hub id, a local folder, an ``s3://``
        prefix, or ``builtin://shapes-clip`` (for demos and tests). Default: ``openai/clip-vit-base-patch32``.
    :param model_revision: a hub branch, tag or commit. Default: the hub's main branch.
    :param device: ``cuda``, ``cuda:1``, ``cpu``, … Default: CUDA where there is a GPU, else the CPU; the log and the
        manifest say which and why.
    :param image_root: folder that relative image paths start from. Default: the folder of ``first_entry_file_name``,
        or of the step that is read where there is none.
    :param image_path_rewrite: what image paths begin with that were written elsewhere, and what takes its place, as in
        ``{"/mnt/old/": "s3://bucket/new/"}``; ``./`` for paths that start from ``image_root``. The longest that fits
        is taken; what comes of it may lead no further than what a row says itself. Default: none.
    :param image_path_repairs: how image paths are mended before: ``blanks`` takes away those around them, ``percent``
        decodes ``%20`` and its like, ``backslashes`` makes slashes of them, ``nfc`` or ``nfd`` composes accents or
        takes them apart. Default: none.
    :param image_hosts: hosts from which ``http(s)`` images may be fetched. Default: none.
    :param image_buckets: buckets that images may be in, beside those of the data set and of ``image_root``.
        Default: none.
    :param on_error: what a row that cannot be scored gets: ``null``, ``zero``, or ``fail`` to fail the task at the
        first one. If no row at all can be scored the task fails in any case. Default: ``null``.
    :param error_key: column to add with the reason why a row has no score. Default: no such column.
    :param cosine_key: column to add with the cosine itself, from -1 to 1. Default: no such column.
    :param clipscore_key: column to add with the CLIPScore of Hessel et al. 2021, 2.5 times the cosine or 0 if that is
        negative. Default: no such column.
    :param sentence_key: for texts that are longer than the model reads, column to add with that sentence of the text
        which agrees least with the image; ``{sentence_key}_score``, added too, has its score. Default: no such columns.
    :param percentile_key: column to add with the share of the data set's mismatched pairs that score lower, in percent.
        Not with part files. Default: no such column.
    :param min_score: write the rows with at least this score to a step of their own,
        ``{cache_path}/{file_name_prefix}_filtered_step{n+1}.{cache_type}``, too: a number from 0 to 1, or ``threshold``
        for the score that tells rows from mismatched pairs best. Of this limit and the next three, rows must keep all
        that are given. Not with part files. Default: no such step.
    :param max_score: write the rows with at most this score there. Default: no such limit, as for the next two.
    :param min_percentile: write the rows there with at least this percentile among the data set's mismatched pairs, as
        in ``percentile_key``: a number from 0 to 100.
    :param keep_top: write the best rows there: this share, as in 0.3, of all rows that have a score, whatever other
        limits say of them. Rounded up to whole rows; of rows with equal scores the first are taken.
    :param keep_rejected: write all other rows, those without a score, too, to another step,
        ``{cache_path}/{file_name_prefix}_rejected_step{n+1}.{cache_type}``. Default: False.
    :param embeddings_path: URI of a folder for the embeddings of all rows' images and texts, as Parquet, with a part
        file for each ``resume_point_rows`` rows. Not with ``aggregate``, ``reuse`` and ``rescore``. Default: none.
    :param embeddings_dtype: how their numbers are written, ``float16`` or ``float32``. Default: ``float16``.
    :param report: write a page for people beside the output, with samples of the rows. Default: True.
    :param min_mean_score: gate: the lowest mean score, from 0 to 1. Gates are judged when the step is complete and
        handed on; of a step that was divided, in the merge. Default: no limit, as for the next two.
    :param min_auc: gate: the lowest AUC of the rows' scores against those of mismatched pairs; 0.5 is what guessing
        reaches, 1 tells all apart.
    :param max_below_threshold: gate: the largest share of the scored rows, from 0 to 1, that may score below the
        suggested threshold.
    :param on_gate: what becomes of a step that does not pass a gate: ``fail`` fails the task, for good; ``mark`` warns
        in the log and says so in the XCom ``summary``. Default: ``fail``.
    :param on_weak_threshold: what becomes of a suggested threshold that means little (the AUC is below 0.6, or more
        than 30 % of mismatched pairs reach it), where ``min_score`` or ``max_below_threshold`` go by it: ``warn`` says
        so in the log; ``fail`` fails the job before anything is written, and takes the gate for not passed.
        Default: ``warn``.
    :param max_error_rate: the largest share of rows, from 0 to 1, that may be without a score; above it the task fails,
        with a table of what is wrong in its log. Looked at while it scores and at the end. Default: 0.1.
    :param max_error_rates: the same for single reasons, as in ``{"image_unavailable": 0.01}``. Default: no such limits.
    :param rescore: ``failed`` keeps the scores of an output that is there already and tries again the rows that have
        none, but for those whose fault lies in the row itself. Default: nothing is kept of a request that changed, and
        nothing is done where the same was done before.
    :param resume_point_rows: rows after which results are saved beside the output. A try that dies loses at most so
        many; the next one goes on behind them, with the same bytes in the end. Images and texts that rows repeat are
        recognised among so many rows. Default: 4096.
    :param batch_size: images that go through the model together, or ``auto``, which takes what suits the device and the
        model. Where the memory is too small for a batch it is halved, and the job goes on. Default: ``auto``.
    :param precision: ``fp32``; ``bf16`` or ``fp16``, faster on GPUs, with scores that differ a little; ``auto`` for
        fp16 on CUDA and fp32 elsewhere. The cosine is always computed in fp32. Default: ``fp32``.
    :param image_decoding: ``full``, or ``reduced`` to decode large JPEGs at a smaller size that still has twice the
        pixels a side that the model needs: faster, with scores that differ a little. Default: ``full``.
    :param image_orientation: ``exif`` turns images upright, as the EXIF of photographs says, before they are scored;
        ``stored`` scores them as they are stored, as Pillow opens them. The log says how many are to be turned and
        were not. Default: that of the input, ``exif`` for ``hf:`` data sets, whose own library turns images, else
        ``stored``.
    :param embedding_cache_bytes: memory for the embeddings of images and texts, so that rows which repeat an earlier
        one's cost nothing. Default: 32 MiB.
    :param max_image_bytes: largest image file accepted, in bytes. Default: 64 MiB.
    :param max_image_pixels: largest image accepted, in pixels; decoding takes about 8 bytes a pixel, of 200
        million pixels at once at most. Default: 100 million.
    :param max_image_seconds: processor time that decoding one image may take, in whole seconds. Default: 30.
    :param overwrite: replace an output that another task wrote, replace score columns that the input has already, and
        score again what is scored already, but for what an earlier try of the same task instance has scored.
        Default: False.
    :param reuse: URI of a folder, a score store: rows whose image, text and model were scored before take their scores
        from it, and new scores are added. Default: none.
    :param shard: score one shard of the step only, such as ``00003-of-00007``; ``clip_evaluation_group`` maps the task
        over them. Default: all of the step.
    :param plan: with ``shard``, the URI of the plan that cut the step. Default: none.
    :param aws_conn_id: Airflow connection with the S3 credentials, unless a place names one. None leaves it to boto3
        (environment, service account). Default: ``aws_default``.
        In Kubernetes mode it is for the worker, which reads the manifest; the pod has credentials of its own.
    :param execution_mode: ``local``: on the worker, in the task's own process or under ``python``. ``kubernetes``: in a
        pod of its own; ``pod`` and ``gpus`` are for it alone. Default: ``local``.
    :param python: path of another Python interpreter to run the scoring under, one that has torch and the rest of
        the extra ``scoring``, so that Airflow's own environment need not have them. Default: the task's own process.
    :param pod: arguments of KubernetesPodOperator: ``image``, ``namespace``, ``service_account_name``, ``secrets``,
        ``volumes``, ``pod_template_file``, … as Python objects, or as JSON with the field names that a pod's YAML has.
        It decides all but the command, the request and what becomes of the result; what it does not say gets defaults
        that suit a scorer.
    :param gpus: 1 to give the pod an NVIDIA GPU and fail if it finds none. Default: 0.
    :param deferrable: wait for the pod in the triggerer, not on a worker. Default: Airflow's setting
        ``[operators] default_deferrable``.
    :param max_api_outage_seconds: for which Kubernetes' API may not tell how the pod fares, in whole seconds; then the
        task fails, and the pod is left to the next try. Default: 3600.
    """

    template_fields_renderers: ClassVar[dict[str, str]] = {
        "column_names": "json",
        "image_path_rewrite": "json",
        "image_path_repairs": "json",
        "image_hosts": "json",
        "image_buckets": "json",
        "max_error_rates": "json",
        "python": "bash",
        "pod": "json",
    }
    operator_extra_links: Collection[BaseOperatorLink] = (ReportLink(), ScoredStepLink())
    shallow_copy_attrs: Sequence[str] = ("_stop",)  # a lock cannot be copied otherwise
    ui_color = "#e8f0fe"

    def __init__(
        self,
        *,
        first_entry_file_name: Place = "",
        cache_path: Place,
        file_name_prefix: str = "dataflow_cache_step",
        cache_type: str = "jsonl",
        step: int | str = 0,
        input_image_key: str = "image_path",
        input_text_key: str = "text",
        delimiter: str | None = None,
        quotechar: str | None = None,
        escapechar: str | None = None,
        encoding: str | None = None,
        column_names: Sequence[str] = (),
        output_key: str = "clip_score",
        aggregate: str | None = None,
        model_name: Place = "openai/clip-vit-base-patch32",
        model_revision: str | None = None,
        device: str | None = None,
        image_root: Place | None = None,
        image_path_rewrite: Mapping[str, Place] | str | None = None,
        image_path_repairs: Sequence[str] = (),
        image_hosts: Sequence[str] = (),
        image_buckets: Sequence[Place] = (),
        on_error: str = "null",
        error_key: str | None = None,
        cosine_key: str | None = None,
        clipscore_key: str | None = None,
        sentence_key: str | None = None,
        percentile_key: str | None = None,
        min_score: float | str | None = None,
        max_score: float | str | None = None,
        min_percentile: float | str | None = None,
        keep_top: float | str | None = None,
        keep_rejected: bool | str = False,
        embeddings_path: Place | None = None,
        embeddings_dtype: str = "float16",
        report: bool | str = True,
        min_mean_score: float | str | None = None,
        min_auc: float | str | None = None,
        max_below_threshold: float | str | None = None,
        on_gate: str = "fail",
        on_weak_threshold: str = "warn",
        max_error_rate: float | str = 0.1,
        max_error_rates: Mapping[str, float] | str | None = None,
        rescore: str | None = None,
        resume_point_rows: int | str = 4096,
        batch_size: int | str = "auto",
        precision: str = "fp32",
        image_decoding: str = "full",
        image_orientation: str | None = None,
        embedding_cache_bytes: int | str = 32 << 20,
        max_image_bytes: int | str = 64 << 20,
        max_image_pixels: int | str = 100_000_000,
        max_image_seconds: int | str = 30,
        overwrite: bool | str = False,
        reuse: Place | None = None,
        shard: str | None = None,
        plan: Place | None = None,
        aws_conn_id: str | None = "aws_default",
        execution_mode: str = "local",
        python: Place | None = None,
        pod: Mapping[str, Any] | str | None = None,
        gpus: int | str = 0,
        deferrable: bool | str | None = None,
        max_api_outage_seconds: int | str = 3600,
        **kwargs: Any,
    ) -> None:
        given = locals()
        super().__init__(**kwargs)
        # A subclass has more, and sets them itself.
        own = {name: given[name] for name in ImageCLIPEvaluatorOperator.template_fields}
        for name, value in as_written(own).items():
            setattr(self, name, value)
        self._execution: Execution | None = None
        self._manifest: EvaluationManifest | None = None
        self._stop = threading.Event()
        self._check_given(ImageCLIPEvaluatorOperator)

    # Behind the signature that it is read from.
    template_fields: Sequence[str] = own_parameters(__init__)

    @classmethod
    def partial(cls, **kwargs: Any) -> Any:
        """Take the parameters that all instances of a mapped task share, as Airflow does.

        :return: what has ``expand`` and ``expand_kwargs``, which refuse what would have instances write one output, and
            what is wrong with the parameters of one.
        """
        names = ImageCLIPEvaluatorOperator.template_fields
        own = as_written({name: value for name, value in kwargs.items() if name in names})
        return CheckedPartial(super().partial(**{**kwargs, **own}), cls)

    @classmethod
    def check_parameters(cls, parameters: Mapping[str, Any]) -> None:
        """Check what the parameters say of how the task goes about it: of shards, of where it scores, of gates.

        :param parameters: as they are meant; those that are not among them are not known yet.
        :raises RequestError: one is wrong, or two do not go together.
        """
        from clip_operator.operators.asked import check_on_gate
        from clip_operator.operators.where import check_where

        check_on_gate(parameters)
        check_where(parameters)
        for name, other in (("shard", "plan"), ("plan", "shard")):
            if parameters.get(name, ...) is None and parameters.get(other) is not None:
                raise RequestError(f"{other} without {name}: the task that plans the shards hands on both")

    def _check_given(self, kind: type[ImageCLIPEvaluatorOperator]) -> None:
        """Check what the DAG's file gives, once all of it is here: ``kind`` is whose ``__init__`` ends.

        What is wrong with an instance of a mapped task fails that instance alone, for good, when it runs.
        """
        from clip_operator.operators.asked import check_given

        is_instance = getattr(self, "_BaseOperator__from_mapped", False)
        if not is_instance and inspect.unwrap(type(self).__init__) is inspect.unwrap(kind.__init__):
            given = {name: getattr(self, name) for name in self.template_fields if hasattr(self, name)}
            check_given(type(self), given, self.get_dag())

    def execute(self, context: Context) -> list[str]:
        """Score the step; see the class for what is returned and pushed.

        :raises TaskDeferred: a pod scores it, and the triggerer is to wait for that.
        :raises AirflowFailException: a parameter is wrong, so another try would not help.
        :raises AirflowException: the job failed.
        """
        # Imported when a task runs: a DAG file that imports the operator must stay cheap to parse.
        from clip_operator.operators.log_groups import log_group, log_request
        from clip_operator.operators.work import work_of

        with told_to_airflow(context):
            parameters, limits = self._parameters()
            connection = connection_of(parameters)
            self._execution = _execution(parameters, connection, context, limits)
            work = work_of(parameters, requester_of(context), connection.storage(), limits)
            _label(context, work)
            if self._stop.is_set():  # when there was no execution yet to be stopped
                self._execution.stop()
            log_request(work.request)
            with log_group("Scoring"):
                manifest = self._execution.run(work)
        return self._hand_on(context, parameters, manifest, work.output_step, work.request)

    def trigger_reentry(self, context: Context, event: dict[str, Any]) -> list[str]:
        """Go on after the triggerer has waited for the pod; as :meth:`execute` otherwise.

        :param event: what the triggerer saw, and the work that :meth:`execute` had begun.
        """
        from clip_operator.operators.log_groups import log_group

        with told_to_airflow(context):
            parameters, limits = self._parameters()
            self._execution = execution = _pod(parameters, connection_of(parameters).storage(), context, limits)
            work = execution.planned(event)
            limits.bounded(work.request)
            _label(context, work)
            if self._stop.is_set():
                execution.stop()
            with log_group("Scoring"):
                manifest = execution.resume(event)
        return self._hand_on(context, parameters, manifest, work.output_step, work.request)

    def on_kill(self) -> None:
        """Stop the work; ``execute`` then raises, so that the task does not end as a success."""
        self._stop.set()
        if self._execution is not None:
            self._execution.stop()

    def render_template(
        self,
        content: Any,
        context: Context,
        jinja_env: jinja2.Environment | None = None,
        seen_oids: set[int] | None = None,
    ) -> Any:
        """Render Kubernetes objects too, which ``pod`` may hold and which Airflow would leave as they are.

        A URI with a password is going to be refused; until then Airflow keeps what is rendered, and so masks it.
        """
        if not hasattr(type(content), "openapi_types"):
            value = super().render_template(content, context, jinja_env, seen_oids)
            if isinstance(content, str) and isinstance(value, Number):
                # Rendered as a native object, 2026_10 is 202610: what says more than its number stays as it is written.
                # Behind a mark that no number begins with it does.
                text = super().render_template(f"={content}", context, jinja_env, seen_oids)[1:]
                value = value if str(value) == text.strip() else text
            if isinstance(value, str) and holds_secret(connection_in(value)[1]):
                mask_secret(value)
            return value
        rendered = copy.copy(content)
        for name in type(content).openapi_types:
            setattr(rendered, name, self.render_template(getattr(content, name), context, jinja_env, seen_oids))
        return rendered

    def get_openlineage_facets_on_start(self) -> OperatorLineage[Any, Any]:
        """Return to OpenLineage which data set is read, as far as the parameters alone tell."""
        from airflow.providers.openlineage.extractors import OperatorLineage

        from clip_operator.operators.lineage import lineage_before

        try:
            return lineage_before(parameters_of(self, self.template_fields))
        except RequestError:  # which the task itself tells
            return OperatorLineage()

    def get_openlineage_facets_on_complete(self, _: Any) -> OperatorLineage[Any, Any]:
        """Return to OpenLineage what was read and written, and how good it is. Asked for when the task failed, too."""
        from clip_operator.operators.lineage import lineage_after

        return self.get_openlineage_facets_on_start() if self._manifest is None else lineage_after(self._manifest)

    def _parameters(self) -> tuple[dict[str, Any], Limits]:
        """Return the rendered parameters, and the limits that they are within.

        :raises RequestError: they are not, or do not go together.
        """
        from clip_operator.operators.limits import Limits

        parameters, limits = parameters_of(self, self.template_fields), Limits.configured()
        limits.check_parameters(parameters)
        self.check_parameters(parameters)
        return parameters, limits

    def _hand_on(
        self,
        context: Context,
        parameters: Mapping[str, Any],
        manifest: EvaluationManifest,
        output_step: int,
        request: EvaluationRequest,
    ) -> list[str]:
        from clip_operator.operators.result import hand_on

        self._manifest = manifest  # for OpenLineage, which asks when the task has ended
        return hand_on(context, parameters, manifest, output_step, request)


def _label(context: Context, work: Work) -> None:
    """Give ``map_index_template`` something to show: ``shard_label``, which of how many shards, and its rows.

    Airflow renders that template before a task, when this is not there yet, and after it, also when it failed.
    """
    if work.shard_label is not None:
        cast("dict[str, Any]", context)["shard_label"] = work.shard_label


def _execution(parameters: Mapping[str, Any], connection: AwsConnection, context: Context, limits: Limits) -> Execution:
    from clip_operator.operators.execution.local import InProcess, Subprocess

    if parameters["execution_mode"] == "kubernetes":
        return _pod(parameters, connection.storage(), context, limits)
    if parameters["python"]:
        return Subprocess(parameters["python"], connection.environment())
    return InProcess(connection.storage())


def _pod(parameters: Mapping[str, Any], storage: Storage, context: Context, limits: Limits) -> KubernetesPod:
    try:
        from clip_operator.operators.execution.kubernetes import KubernetesPod
        from clip_operator.operators.execution.pods.settings import pod_settings
    except ModuleNotFoundError as error:
        raise JobError(
            f"Airflow's Python has no {error.name!r}, which execution_mode='kubernetes' needs: pip install "
            "'apache-airflow-providers-cncf-kubernetes>=10.25' there"
        ) from None
    deferrable = parameters["deferrable"]
    if deferrable is None:
        deferrable = conf.getboolean("operators", "default_deferrable", fallback=False)
    outage = parameters["max_api_outage_seconds"]
    settings = pod_settings(parameters["pod"], parameters["gpus"], deferrable, limits, outage)
    return KubernetesPod(settings, storage, context)
