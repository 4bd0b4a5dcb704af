"""The report in a real browser: filters show the right rows, pictures are there, and nothing is asked of anybody."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.report import write_comparison, write_report
from tests.needs import chromium
from tests.report_runs import ATTACK, held_out, picture, rollout, write_run

pytest.importorskip("playwright", reason="playwright is missing: it is installed with the extra dev")
from playwright.sync_api import BrowserContext

from tests.browser import Opened, browser, opened

_REWARDS = {1: (0.0, 0.5, None), 2: (1.0, 1.5, 2.0)}


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrowserContext]:
    with browser(chromium(), tmp_path_factory.mktemp("profile")) as started:
        yield started


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two steps of three rollouts, from two sources, and two evaluations of the same three prompts."""
    folder = tmp_path_factory.mktemp("runs")
    shown = picture(folder / "a.png"), picture(folder / "b.png", (200, 10, 10), (900, 700))
    kept = {
        step: [
            rollout(
                shown[k % 2],
                uid=f"u{step}{k}",
                reward=reward,
                reward_status="failed" if reward is None else "cached" if k == 2 else "scored",
                source="maps" if k else "charts",
                completion_text=f"{ATTACK} answer {step}-{k}",
                answer_right=bool(k),
            )
            for k, reward in enumerate(rewards)
        ]
        for step, rewards in _REWARDS.items()
    }
    before = [held_out(f"h{k}", f"old {k} {ATTACK}", right=k == 0, shown=shown[k % 2]) for k in range(3)]
    after = [held_out(f"h{k}", f"new {k} {ATTACK}", right=k != 0, shown=shown[k % 2]) for k in (2, 1, 0)]
    rows = [{"step": 0, "eval/accuracy": 0.3}, {"step": 1, "reward/mean": 0.2}, {"step": 2, "eval/accuracy": 0.7}]
    return write_run(folder / "run", rows, rollouts=kept, evaluations={0: before, 2: after})


@pytest.fixture
def report(context: BrowserContext, run: Path) -> Iterator[Opened]:
    found = opened(context, write_report(run))
    yield found
    found.page.close()


def _rewards(report: Opened) -> list[str]:
    """Of the rollouts that can be seen."""
    return [one for one in report.shown("reward") if one is not None]


def test_every_picture_is_seen_nothing_complains_and_nothing_is_asked_of_anybody(report: Opened, run: Path) -> None:
    widths = report.widths()
    assert len(widths) == 9 and set(widths) == {40, 224}
    assert report.complaints == []
    assert report.requests == [(run / "report.html").resolve().as_uri()]


def test_a_range_of_rewards_shows_the_rows_within_it_and_none_without_a_reward(report: Opened) -> None:
    assert len(_rewards(report)) == 6
    report.page.fill("[data-by=reward][data-end=least]", "0.5")
    assert _rewards(report) == ["0.5", "1.0", "1.5", "2.0"]
    report.page.fill("[data-by=reward][data-end=most]", "1.5")
    assert _rewards(report) == ["0.5", "1.0", "1.5"]
    assert report.page.inner_text("output[data-noun=rollouts]") == "3 of 6 rollouts"
    report.page.click(".filters:has([data-by=reward]) button")
    assert len(_rewards(report)) == 6 and report.page.inner_text("output[data-noun=rollouts]") == "6 rollouts"


@pytest.mark.parametrize(
    ("control", "value", "rewards"),
    [
        ("status", "=scored", ["0.0", "0.5", "1.0", "1.5"]),
        ("status", "=failed", [""]),
        ("source", "=charts", ["0.0", "1.0"]),
        ("answer", "=wrong", ["0.0", "1.0"]),
    ],
)
def test_a_choice_shows_the_rows_that_are_so(report: Opened, control: str, value: str, rewards: list[str]) -> None:
    report.page.select_option(f".filters:has([data-by=reward]) [data-by={control}]", value)
    assert _rewards(report) == rewards


def test_filters_count_together_and_a_step_without_a_row_loses_its_heading(report: Opened) -> None:
    report.page.fill(".filters:has([data-by=reward]) [data-by=text]", "ANSWER 2-")
    report.page.select_option(".filters:has([data-by=reward]) [data-by=source]", "=maps")
    assert _rewards(report) == ["1.5", "2.0"]
    assert [one.is_visible() for one in report.page.query_selector_all("h3:text-matches('Step')")] == [False, True]


def test_both_answers_to_a_prompt_stand_together_with_its_picture(report: Opened) -> None:
    pairs = report.page.eval_on_selector_all(
        "article[data-uid]",
        """all => all.map(one => [one.dataset.uid, one.dataset.change, one.querySelector("img").naturalWidth,
            ...["before", "after"].map(name => one.querySelector(`.${name} pre`).textContent.slice(0, 5))])""",
    )
    assert pairs == [
        ["h2", "became right", 40, "old 2", "new 2"],
        ["h1", "became right", 224, "old 1", "new 1"],
        ["h0", "became wrong", 40, "old 0", "new 0"],
    ]
    report.page.select_option("[data-by=change]", "=became wrong")
    assert [uid for uid in report.shown("uid") if uid] == ["h0"]


def test_words_of_a_row_run_nothing_and_a_script_that_got_in_would_not_either(report: Opened) -> None:
    assert report.page.evaluate("document.scripts.length") == 1
    stopped = report.page.evaluate(
        """() => new Promise(told => {
            document.addEventListener("securitypolicyviolation", event => told(event.effectiveDirective));
            const script = document.createElement("script");
            script.textContent = "window.ran = true";
            document.body.append(script);
        })"""
    )
    assert stopped == "script-src-elem" and report.page.evaluate("window.ran") is None


def test_runs_beside_each_other_say_what_differs_and_draw_a_line_each(
    context: BrowserContext, run: Path, tmp_path: Path
) -> None:
    rows = [{"step": step, "reward/mean": 0.1 * step, "reward/std": 0.1} for step in range(4)]
    config = {"algo": "grpo", "run": {"steps": 10, "dir": "elsewhere"}, "optimizer": {"lr": 1e-4}}
    other = write_run(tmp_path / "other", rows, config=config)
    report = opened(context, write_comparison([run, other]))
    table = report.page.inner_text("h2:text('Settings that differ') + table")
    assert all(told in table for told in ("algo", "stable_reinforce", "grpo", "optimizer.lr", "0.0001"))
    assert "run.steps" not in table and "run.dir" not in table
    lines = "body > .curves figure:has(figcaption:text-is('reward/mean')) path.line"
    assert report.page.locator(lines).count() == 2
    assert report.complaints == [] and 0 not in report.widths()
    report.page.close()


def test_a_pipeline_and_its_benchmark_are_told_in_order(context: BrowserContext, tmp_path: Path) -> None:
    made = {"algo": "dpo", "run": {"steps": 4}, "model": {"path": str(tmp_path / "mine/zero/checkpoints/step_000004")}}
    write_run(tmp_path / "mine" / "later", [{"step": 1, "eval/pair_accuracy": 0.6}], config=made)
    write_run(
        tmp_path / "mine" / "zero", [{"step": 1, "policy/loss": 0.6}], config={"algo": "sft", "run": {"steps": 4}}
    )
    figures = {"strict": {"figures": {"accuracy": {"value": 0.75, "interval": [0.7, 0.8], "of": 8}}}}
    told = {"benchmark": "vl_reward_bench", "model": str(tmp_path / "mine/later/checkpoints/x"), "ways": figures}
    (tmp_path / "mine" / "a_measured").mkdir()
    (tmp_path / "mine" / "a_measured" / "scores.json").write_text(json.dumps(told))
    report = opened(context, write_report(tmp_path / "mine"))
    assert report.page.locator(".story a").all_inner_texts() == ["zero", "later", "a_measured"]
    assert "from later" in report.page.inner_text(".story li:last-child")
    assert "accuracy 0.750 (0.700-0.800)" in report.page.inner_text(".story li:last-child")
    report.page.click(".story a >> text=a_measured")
    assert report.page.is_visible("#chapter-2 table") and report.complaints == []
    report.page.close()
