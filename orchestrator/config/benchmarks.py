"""What a run's configuration says of benchmarks: those that it is measured on, and a stage that measures a model."""

from typing import Any, Literal

from pydantic import Field, field_validator

from algorithms.settings import Count, GivenPath, Section, Text

VerdictForm = Literal["tagged", "answer_is_better", "bracketed", "overall_judgment"]


class Questions(Section):
    """How pairs of responses are put to a judge; as the options of the same names of orchestrator.evaluate."""

    order: Literal["both", "one"] = "both"
    """Whether pairs are shown in both orders, or in one that the seed chooses."""
    form: VerdictForm = "tagged"
    """How a judge writes its verdict, and the template that asks for it."""
    template: GivenPath | None = None
    """File with a template of one's own, with {question}, {first} and {second}; its verdict is of the same form."""


class EvalBenchmark(Questions):
    """A benchmark that a run is measured on: an ``[[eval.benchmark]]`` table."""

    name: Text
    """Of the benchmark; what its figures are called by."""
    path: GivenPath
    """Its released file, or the folder of its shards."""
    media_root: GivenPath | None = None
    """Folder that its media stay inside; none = that of the file."""
    rows: Count | None = None
    """Most rows to ask about, drawn by the run's seed, what belongs together whole; none = all."""


class Measure(Questions):
    """A ``[[stage]]`` that measures what an earlier one has made, in place of training."""

    evaluate: Text
    """Name of the benchmark."""
    compat: tuple[Text, ...] = Field(default=(), strict=False)
    """Ways of counting beside strict; none = all that the benchmark has."""
    votes: Count | None = None
    """Samples that vote on each pair, odd; none = the greedy verdict."""

    @field_validator("votes")
    @classmethod
    def _can_decide(cls, votes: int | None) -> int | None:
        if votes is not None and votes % 2 == 0:
            raise ValueError("expected an odd number")
        return votes


class EvalSection(Section):
    """How the policy is measured on held-out data, beside its greedy answers."""

    samples: Count = 1
    """Samples of each held-out prompt: mean@k, pass@k and maj@k are reported from 2 on."""
    temperature: float = Field(default=1.0, ge=0.01)
    """That they are drawn at."""
    best: Text | None = None
    """Figure of the evaluation, e.g. eval/accuracy: the checkpoint with the largest value stays beside the newest."""
    patience: Count | None = None
    """The run ends once so many evaluations in a row were no better than the best by that figure; none = run.steps."""
    benchmark: tuple[EvalBenchmark, ...] = Field(default=(), strict=False)
    """Benchmarks to answer at every evaluation beside the held-out data: [[eval.benchmark]] tables of a --config file,
    each with a name and the path of its released file."""

    def check(self, config: Any) -> None:
        """Refuse patience with nothing, and two tables whose figures would have the same names.

        Raises:
            ValueError: naming the option.
        """
        if self.patience is not None and self.best is None:
            raise ValueError(f"eval.patience = {self.patience} needs eval.best, the figure that is to get better")
        names = [one.name for one in self.benchmark]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"eval.benchmark has the name {twice[0]!r} twice: put its files into one folder")
