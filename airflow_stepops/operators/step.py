"""The Airflow task of a step: runs it in the worker, or launches its job, defers and resumes."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk.bases.decorator import DecoratedOperator

from airflow_stepops.errors import EndKind, JobFailedError, JobRefusedError, StepopsError
from airflow_stepops.links.job import LINKS
from airflow_stepops.operators.arguments import brought, check_json, from_context, plain
from airflow_stepops.operators.image import step_image
from airflow_stepops.operators.record import facts_of, tell, told
from airflow_stepops.operators.references import allow_references
from airflow_stepops.operators.source import code_root, source_file, step_source
from airflow_stepops.operators.versions import AirflowFailException, TaskDeferralTimeout
from airflow_stepops.runtime.spec import Attempt, JobSpec
from airflow_stepops.stacks.components import ArtifactStoreComponent, StepOperatorComponent
from airflow_stepops.stacks.flavors import component_from_document

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_stepops.artifacts.store import ArtifactStore
    from airflow_stepops.images.builder import BuiltImage
    from airflow_stepops.jobs.launch import Launch
    from airflow_stepops.jobs.protocol import JobService, JobStatus
    from airflow_stepops.runtime.result import JobResult
    from airflow_stepops.stacks.models import Stack

#: Seconds that a job may overstay its own deadlines before Airflow itself ends the deferral.
_NET_MARGIN = 900

allow_references()


class StepTask(DecoratedOperator):
    """One step of a pipeline. Made by :func:`airflow_stepops.dag.step`; every argument is plain JSON.

    :param stack: name of the stack, or ``None`` for the active one.
    :param step_operator: its name in the stack, ``True`` for the stack's default, ``None`` for the worker.
    :param step_resources: the JSON form of :class:`~airflow_stepops.options.Resources`.
    :param image: the JSON form of :class:`~airflow_stepops.options.Image`.
    :param timeout: seconds the job may run.
    :param pending_timeout: seconds the job may wait for capacity.
    :param environment: variables of the job; templated.
    :param secrets: variable name → secret reference.
    :param settings: settings of the step operator's flavor for this step.
    :param outputs: declared names of several outputs.
    """

    custom_operator_name = "@step"
    template_fields: Sequence[str] = (*DecoratedOperator.template_fields, "environment")
    operator_extra_links = LINKS
    ui_color = "#d9eaf7"

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        stack: str | None = None,
        step_operator: str | bool | None = None,
        step_resources: dict[str, Any] | None = None,
        image: dict[str, Any] | None = None,
        timeout: int | None = None,
        pending_timeout: int | None = None,
        environment: dict[str, str] | None = None,
        secrets: dict[str, str] | None = None,
        settings: dict[str, Any] | None = None,
        outputs: list[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(python_callable=python_callable, **kwargs)
        self.stack = stack
        self.step_operator = step_operator
        self.step_resources = step_resources or {}
        self.image = image or {}
        self.timeout = timeout
        self.pending_timeout = pending_timeout
        self.environment = environment or {}
        self.secrets = secrets or {}
        self.settings = settings or {}
        self.outputs = outputs
        self._stop_launched: Callable[[], None] | None = None

    def execute(self, context: Context) -> Any:
        """Run the step here, or launch its job and defer."""
        stack = self._stack()
        store = stack.artifact_store.open()
        if not self.step_operator:
            return self._run_in_worker(context, store)
        component = stack.operator_named(self.step_operator).overridden(self.settings)
        return self._launch(context, stack, store, component)

    def resume(self, context: Context, event: dict[str, Any]) -> Any:
        """Read the result that the job left, once it has ended.

        :param event: what the trigger saw: ledger entry, status, tail of the log.
        """
        from airflow_stepops.jobs.ledger import Ledger, LedgerEntry
        from airflow_stepops.jobs.outcome import explain, judge
        from airflow_stepops.triggers.job import status_from_document

        entry = LedgerEntry.from_document(event["entry"])
        status = status_from_document(event["status"])
        store = component_from_document(ArtifactStoreComponent, event["artifact_store"]).open()
        result, problem = _read_result(store, entry.directory, entry.job_attempt)
        outcome = judge(status, result, problem)
        Ledger(store, entry.attempt).record(entry.ended(status, outcome))
        self._record_end(context, result, status)
        if outcome.kind is None:
            assert result is not None
            return self._returned(result)
        where = f"{entry.component['flavor']} job {entry.job_name}"
        text = explain(outcome, where=where, result=result, log_tail=event["log_tail"], console_url=entry.console_url)
        raise _failure(text, outcome.kind)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume; when the deferral itself timed out, stop the job first."""
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except TaskDeferralTimeout as error:
            job = self._stop_job_of(context)
            text = f"job {job} ended with timeout: it was there {_NET_MARGIN} s after its deadlines, and was stopped."
            raise JobFailedError(text, EndKind.TIMEOUT) from error

    def on_kill(self) -> None:
        """Stop a job that was launched but not yet waited for, when the task is killed in the worker."""
        if self._stop_launched is not None:
            self._stop_launched()

    def _stack(self) -> Stack:
        from airflow_stepops.stacks.file import load

        return load(near=source_file(self.python_callable).parent).stack(self.stack)

    def _code_root(self, context: Context) -> Path:
        bundle = getattr(context["ti"], "bundle_instance", None)
        return code_root(source_file(self.python_callable), Path(bundle.path).resolve() if bundle else None)

    def _spec(self, context: Context, store: ArtifactStore, arguments: Mapping[str, Any]) -> JobSpec:
        from airflow_stepops.jobs.attempt import attempt_directory, task_directory
        from airflow_stepops.runtime.call import encode_inputs

        ti = context["ti"]
        attempt = Attempt(
            dag_id=ti.dag_id,
            run_id=ti.run_id,
            task_id=ti.task_id,
            map_index=-1 if ti.map_index is None else ti.map_index,
            try_number=ti.try_number,
        )
        directory = attempt_directory(store.root, attempt)
        args, kwargs = encode_inputs(
            [brought(plain(value), store, directory) for value in self.op_args],
            {name: brought(plain(value), store, directory) for name, value in {**arguments, **self.op_kwargs}.items()},
            store,
            directory,
        )
        return JobSpec(
            attempt=attempt,
            step=step_source(self.python_callable, self._code_root(context)),
            root=store.root,
            directory=directory,
            args=args,
            kwargs=kwargs,
            outputs=self.outputs,
            checkpoints=f"{task_directory(store.root, attempt)}/checkpoints",
            environment=dict(self.environment),
            secrets=dict(self.secrets),
            timeout=self.timeout,
        )

    def _run_in_worker(self, context: Context, store: ArtifactStore) -> Any:
        from airflow_stepops.artifacts import modules
        from airflow_stepops.runtime.call import run_step

        submitted_at = time.time()
        spec = self._spec(context, store, {})
        function = functools.partial(self.python_callable, **self._context_arguments(context))
        modules.alias(spec.step.module, self.python_callable.__module__, self.python_callable.__globals__)
        store.put(spec.uri, spec.to_json())
        result = run_step(function, spec, store, reraise=True)
        tell(context, where="worker", submitted_at=submitted_at, **facts_of(result))
        return self._returned(result)

    def _launch(
        self, context: Context, stack: Stack, store: ArtifactStore, component: StepOperatorComponent
    ) -> NoReturn:
        from airflow_stepops.jobs.launch import Launcher

        tell(context, where=component.flavor, step_operator=component.name)
        arguments = {name: plain(value) for name, value in self._context_arguments(context).items()}
        check_json(arguments, self.task_id)
        spec = self._spec(context, store, arguments)
        try:
            built = step_image(
                self.python_callable, self.image, stack, component, self._code_root(context), self._report
            ).ensure()
        except StepopsError as error:
            _record_failure(store, spec, component, error)
            raise
        request = self._request(spec, stack, built)
        launcher = Launcher(store, _connect, self._report)
        self._stop_launched = functools.partial(_stop_by_name, component.connect(), request.name)
        try:
            launch = launcher.launch(
                spec,
                request,
                component.document(),
                # A clear lets Airflow count on from the try that there was.
                first_try=context["ti"].max_tries - (self.retries or 0) + 1,
                uploaded_blobs=built.uploaded_blobs,
                uploaded_bytes=built.uploaded_bytes,
            )
        except JobRefusedError as error:
            raise _failure(f"{component.flavor} job {request.name} was refused: {error}", error.kind) from error
        self._defer(context, stack, launch, built)

    def _report(self, line: str) -> None:
        self.log.info("[stepops] %s", line)

    def _request(self, spec: JobSpec, stack: Stack, built: BuiltImage) -> Any:
        from airflow_stepops.jobs.attempt import job_name
        from airflow_stepops.jobs.protocol import JobRequest

        attempt = spec.attempt
        return JobRequest(
            name=job_name(spec.root, attempt),
            attempt=attempt,
            image=built.reference,
            spec_uri=spec.uri,
            environment=stack.artifact_store.job_environment(),
            secrets=self.secrets,
            resources=self.step_resources,
            artifact_root=spec.root,
            repository=stack.container_registry.open(),
            timeout=self.timeout,
            pending_timeout=self.pending_timeout,
            labels={"dag_id": attempt.dag_id, "task_id": attempt.task_id, "run_id": attempt.run_id},
        )

    def _defer(self, context: Context, stack: Stack, launch: Launch, built: BuiltImage) -> NoReturn:
        from airflow_stepops.triggers.job import JobTrigger

        entry = launch.entry
        self._report(f"waits for {entry.component['flavor']} job {entry.job_name}")
        tell(
            context,
            where=entry.component["flavor"],
            step_operator=stack.operator_named(self.step_operator).name,
            image=built.reference,
            image_digest=built.digest,
            uploaded_blobs=built.uploaded_blobs,
            uploaded_bytes=built.uploaded_bytes,
            job_id=entry.job_id,
            job_name=entry.job_name,
            console_url=entry.console_url,
            logs_url=launch.logs_url,
            image_url=stack.container_registry.console_url(built.reference),
            artifacts_url=stack.artifact_store.console_url(entry.directory),
            component=entry.component,
            submitted_at=launch.submitted_at,
        )
        net = None
        if self.timeout is not None and self.pending_timeout is not None:
            net = self.timeout + self.pending_timeout + _NET_MARGIN
        self.defer(
            trigger=JobTrigger(
                entry=dataclasses.asdict(entry),
                artifact_store=stack.artifact_store.document(),
                submitted_at=launch.submitted_at,
                timeout=self.timeout,
                pending_timeout=self.pending_timeout,
            ),
            method_name="resume",
            timeout=net,
        )

    def _record_end(self, context: Context, result: JobResult | None, status: JobStatus) -> None:
        facts = facts_of(result) if result is not None else {"ended_at": status.ended_at}
        tell(context, **{**told(context), "job_metadata": dict(status.metadata), **facts})

    def _stop_job_of(self, context: Context) -> str:
        job = told(context)
        if job.get("job_id"):
            from airflow_stepops.jobs.launch import stop

            stop(_connect(job["component"]), job["job_id"])
        return str(job.get("job_name", "(unknown)"))

    def _context_arguments(self, context: Context) -> dict[str, Any]:
        return from_context(self.python_callable, self.op_args, self.op_kwargs, context)

    def _returned(self, result: JobResult) -> Any:
        """Return what goes into XCom: small JSON values as themselves, references for all else."""
        values: dict[str, Any] = {
            name: result.values.get(name, reference) for name, reference in result.outputs.items()
        }
        return values if self.outputs is not None else next(iter(values.values()), None)


def _read_result(store: ArtifactStore, directory: str, attempt: Attempt) -> tuple[JobResult | None, str]:
    """Return the valid result of the attempt, or why there is none."""
    from airflow_stepops.errors import ArtifactNotFoundError, SpecError
    from airflow_stepops.runtime.result import JobResult

    uri = f"{directory}/result.json"
    try:
        return JobResult.from_json(store.get(uri), attempt), ""
    except ArtifactNotFoundError:
        return None, f"there is no result at {uri}"
    except SpecError as error:
        return None, f"the result at {uri} is not valid: {error}"


def _record_failure(store: ArtifactStore, spec: JobSpec, component: StepOperatorComponent, error: StepopsError) -> None:
    """Write into the ledger that the attempt has no image, and so no job."""
    from airflow_stepops.jobs.attempt import job_name
    from airflow_stepops.jobs.ledger import Ledger, LedgerEntry

    name = job_name(spec.root, spec.attempt)
    entry = LedgerEntry(spec.attempt, spec.directory, spec.attempt, spec.digest(), component.document(), name)
    Ledger(store, spec.attempt).open(entry.failed(EndKind.IMAGE, f"{type(error).__name__}: {error}"))


def _failure(text: str, kind: EndKind) -> Exception:
    """Return the exception for an end: one that Airflow does not retry when a retry cannot help."""
    from airflow_stepops.jobs.outcome import FINAL_KINDS

    return AirflowFailException(text) if kind in FINAL_KINDS else JobFailedError(text, kind)


def _connect(document: Mapping[str, Any]) -> JobService:
    return component_from_document(StepOperatorComponent, document).connect()


def _stop_by_name(service: JobService, name: str) -> None:
    status = service.find(name)
    if status is not None and not status.state.ended:
        service.cancel(status.id)
