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
from airflow_stepops.operators.attempt import attempt_of
from airflow_stepops.operators.image import step_image
from airflow_stepops.operators.record import facts_of, tell, told
from airflow_stepops.operators.references import allow_references
from airflow_stepops.operators.source import code_root, source_file, step_source
from airflow_stepops.operators.versions import AirflowFailException, TaskDeferralError, TaskDeferralTimeout
from airflow_stepops.runtime.spec import JobSpec
from airflow_stepops.stacks.components import ArtifactStoreComponent, StepOperatorComponent
from airflow_stepops.stacks.flavors import component_from_document

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_stepops.artifacts.store import ArtifactStore
    from airflow_stepops.images.builder import BuiltImage
    from airflow_stepops.jobs.launch import Launch, Launcher
    from airflow_stepops.jobs.ledger import LedgerEntry
    from airflow_stepops.jobs.protocol import JobRequest, JobStatus
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
        self._launcher: Launcher | None = None

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
        from airflow_stepops.jobs.results import read_result
        from airflow_stepops.triggers.job import status_from_document

        entry = LedgerEntry.from_document(event["entry"])
        status = status_from_document(event["status"])
        store = component_from_document(ArtifactStoreComponent, event["artifact_store"]).open()
        result, problem = read_result(store, entry.directory, entry.job_attempt)
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
        """Resume; when the deferral itself timed out, or its trigger failed, stop the job first."""
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except TaskDeferralTimeout:
            limit = self._longest_deferral()  # none if the DAG has changed meanwhile
            reason = (
                "was there longer than Airflow waits for it"
                if limit is None
                else f"was there longer than {limit:.0f} s"
            )
            return self.resume(context, self._stopped(context, EndKind.TIMEOUT, reason))
        except TaskDeferralError as error:
            reason = f"the trigger that waited for the job failed in the triggerer: {error}"
            return self.resume(context, self._stopped(context, EndKind.INFRASTRUCTURE, reason))

    def on_kill(self) -> None:
        """Stop a job that was launched but not yet waited for, when the task is killed in the worker."""
        if self._launcher is not None:
            self._launcher.stop()

    def _stack(self) -> Stack:
        from airflow_stepops.stacks.file import load

        return load(near=source_file(self.python_callable).parent).stack(self.stack)

    def _code_root(self, context: Context) -> Path:
        bundle = getattr(context["ti"], "bundle_instance", None)
        return code_root(source_file(self.python_callable), Path(bundle.path).resolve() if bundle else None)

    def _spec(self, context: Context, store: ArtifactStore, arguments: Mapping[str, Any]) -> JobSpec:
        from airflow_stepops.jobs.attempt import attempt_directory, task_directory
        from airflow_stepops.runtime.call import encode_inputs

        attempt = attempt_of(context)
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
        from airflow_stepops.jobs.ledger import Ledger

        spec = self._job_spec(context, store)
        tell(context, where=component.flavor, step_operator=component.name, instance=spec.attempt.instance)
        if component.fallbacks:
            component = component.fallen_back(Ledger(store, spec.attempt).earlier_ends(EndKind.CAPACITY))
        with Launcher(store, component, stack.operator_of, self._report) as self._launcher:
            built = self._image(context, stack, store, component, spec)
            request = self._request(spec, stack, built)
            try:
                launch = self._launcher.launch(self._intention(context, component, request, spec, built), spec, request)
            except JobRefusedError as error:
                raise _failure(f"{component.flavor} job {request.name} was refused: {error}", error.kind) from error
            self._tell_job(context, stack, launch, built)
            self._launcher.check_wanted()
        self._defer(stack, launch)

    def _job_spec(self, context: Context, store: ArtifactStore) -> JobSpec:
        arguments = {name: plain(value) for name, value in self._context_arguments(context).items()}
        check_json(arguments, self.task_id)
        return self._spec(context, store, arguments)

    def _image(
        self, context: Context, stack: Stack, store: ArtifactStore, component: StepOperatorComponent, spec: JobSpec
    ) -> BuiltImage:
        try:
            return step_image(
                self.python_callable, self.image, stack, component, self._code_root(context), self._report
            ).ensure()
        except StepopsError as error:
            _record_failure(store, spec, component, error)
            raise

    def _intention(
        self, context: Context, component: StepOperatorComponent, request: JobRequest, spec: JobSpec, built: BuiltImage
    ) -> LedgerEntry:
        from airflow_stepops.jobs.ledger import LedgerEntry, work_digest

        return LedgerEntry(
            spec.attempt,
            spec.directory,
            spec.attempt,
            work_digest(spec, built.recipe, self.step_resources),
            component.document(),
            request.name,
            last_try=context["ti"].max_tries + 1,
            dag_version=str(getattr(context["ti"], "dag_version_id", "")),
            image=built.reference,
            uploaded_blobs=built.uploaded_blobs,
            uploaded_bytes=built.uploaded_bytes,
        )

    def _report(self, line: str) -> None:
        self.log.info("[stepops] %s", line)

    def _request(self, spec: JobSpec, stack: Stack, built: BuiltImage) -> JobRequest:
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

    def _tell_job(self, context: Context, stack: Stack, launch: Launch, built: BuiltImage) -> None:
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
            submitted_at=launch.submitted_at,
            instance=entry.attempt.instance,
            entry=dataclasses.asdict(entry),
            artifact_store=stack.artifact_store.document(),
        )

    def _defer(self, stack: Stack, launch: Launch) -> NoReturn:
        from airflow_stepops.triggers.job import JobTrigger

        self.defer(
            trigger=JobTrigger(
                entry=dataclasses.asdict(launch.entry),
                artifact_store=stack.artifact_store.document(),
                submitted_at=launch.submitted_at,
                timeout=self.timeout,
                pending_timeout=self.pending_timeout,
            ),
            method_name="resume",
            timeout=self._longest_deferral(),
        )

    def _longest_deferral(self) -> float | None:
        """Return the seconds after which Airflow ends the deferral.

        Airflow itself does not count deferred time into ``execution_timeout``.
        """
        limits: list[float] = []
        if self.timeout is not None and self.pending_timeout is not None:
            limits.append(self.timeout + self.pending_timeout + _NET_MARGIN)
        if self.execution_timeout is not None:
            limits.append(self.execution_timeout.total_seconds())
        return min(limits, default=None)

    def _record_end(self, context: Context, result: JobResult | None, status: JobStatus) -> None:
        facts = facts_of(result) if result is not None else {"ended_at": status.ended_at}
        tell(context, **{**told(context), "job_metadata": dict(status.metadata), **facts})

    def _stopped(self, context: Context, kind: EndKind, reason: str) -> dict[str, Any]:
        """Stop the job that the task has waited for; return the event that its trigger would have sent.

        What is needed for that is in XCom, as Airflow keeps it: the stack may be another one by now. A worker that is
        thought to be dead may find there what another try has told, and a later attempt that goes on with its job.
        """
        from airflow_stepops.jobs.known_job import stop
        from airflow_stepops.jobs.ledger import CANCEL, Ledger, LedgerEntry
        from airflow_stepops.jobs.protocol import JobState
        from airflow_stepops.triggers.job import status_document

        facts = told(context)
        if "entry" not in facts or facts["entry"]["attempt"]["ti_id"] != str(context["ti"].id):
            raise _failure(f"{reason}, and another attempt has told of its job since", EndKind.INFRASTRUCTURE)
        entry = LedgerEntry.from_document(facts["entry"])
        store = component_from_document(ArtifactStoreComponent, facts["artifact_store"]).open()
        if not Ledger(store, entry.attempt).claim(CANCEL):
            raise _failure(f"a later attempt has begun, and goes on with job {entry.job_name}", EndKind.CANCELLED)
        self._report(f"{reason}: stops job {entry.job_name}")
        operator = component_from_document(StepOperatorComponent, entry.component)
        status = stop(operator.connect(), entry.job_id)
        if status.state is not JobState.SUCCEEDED:
            status = dataclasses.replace(status, kind=kind, reason=reason)
        return {
            "entry": facts["entry"],
            "artifact_store": facts["artifact_store"],
            "status": status_document(status),
            "log_tail": [],
        }

    def _context_arguments(self, context: Context) -> dict[str, Any]:
        return from_context(self.python_callable, self.op_args, self.op_kwargs, context)

    def _returned(self, result: JobResult) -> Any:
        """Return what goes into XCom: small JSON values as themselves, references for all else."""
        values: dict[str, Any] = {
            name: result.values.get(name, reference) for name, reference in result.outputs.items()
        }
        return values if self.outputs is not None else next(iter(values.values()), None)


def _record_failure(store: ArtifactStore, spec: JobSpec, component: StepOperatorComponent, error: StepopsError) -> None:
    """Write into the ledger that the attempt has no image, and so no job."""
    from airflow_stepops.jobs.attempt import job_name
    from airflow_stepops.jobs.ledger import Ledger, LedgerEntry

    name = job_name(spec.root, spec.attempt)
    entry = LedgerEntry(spec.attempt, spec.directory, spec.attempt, "", component.document(), name)
    Ledger(store, spec.attempt).open(entry.failed(EndKind.IMAGE, f"{type(error).__name__}: {error}"))


def _failure(text: str, kind: EndKind) -> Exception:
    """Return the exception for an end: one that Airflow does not retry when a retry cannot help."""
    from airflow_stepops.jobs.outcome import FINAL_KINDS

    return AirflowFailException(text) if kind in FINAL_KINDS else JobFailedError(text, kind)
