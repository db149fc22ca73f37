"""Assignments of a sweep: each combines a trial with its inputs and the experiment's settings."""

from dataclasses import replace

from lab.config.experiment import Experiment, Job
from lab.config.trial import Trial
from lab.execution.prerequisites import Prerequisites, TrialInputs
from lab.execution.site import Site
from lab.trials.assignment import Assignment


class AssignmentBuilder:
    """Builds the assignments of the trials and of the preparatory runs of a sweep.

    Args:
        experiment: experiment of the sweep.
        site: storage and Ray cluster.
        prerequisites: preparation of the trials' inputs.
    """

    def __init__(self, experiment: Experiment, site: Site, prerequisites: Prerequisites) -> None:
        self._experiment, self._site = experiment, site
        self._prerequisites = prerequisites

    def build_trial(self, job: Job) -> Assignment:
        """Return the assignment of a job's trial; its preparatory runs must have finished.

        A trial that ends at a rung is not fine-tuned.
        """
        assignment = self._build(job.trial, self._prerequisites.prepare_inputs(job.trial))
        return assignment if job.rung is None else replace(assignment, tasks=())

    def build_preparatory_run(self, run: Trial) -> Assignment:
        """Return the assignment of a preparatory run, which is not fine-tuned."""
        return replace(self._build(run, self._prerequisites.inputs_without_start(run)), tasks=())

    def _build(self, trial: Trial, inputs: TrialInputs) -> Assignment:
        identity = inputs.identity
        return Assignment(
            trial=trial,
            folder=self._site.storage / "trials" / trial.fingerprint(identity),
            text=inputs.text,
            held_out=inputs.held_out,
            pairs=inputs.pairs,
            start=inputs.start,
            short_text=inputs.short_text,
            charged=inputs.charged,
            earlier_flops=inputs.earlier_flops,
            metric=self._experiment.metric,
            resources=self._experiment.resources,
            lineage=trial.lineage(identity),
            mirror=self._site.mirror,
            tasks=tuple(self._prerequisites.tasks),
            task_seeds=self._experiment.finetune.seeds,
        )
