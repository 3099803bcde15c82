"""The lines of each benchmark in the README, from its file of results."""

from collections.abc import Iterator
from typing import Any

Row = tuple[str, str, str]


def spread(value: dict[str, float], form: str = ".2f") -> str:
    """`median (least to most)` of a spread."""
    return f"{value['median']:{form}} ({value['min']:{form}} to {value['max']:{form}})"


def study(found: dict[str, Any]) -> Iterator[Row]:
    """benchmarks/study.py"""
    goals = {"one core to one process": "≤ 0.9", "two cores to one": "< 1"}
    for name, value in found["ratios"].items():
        yield f"Study `{found['study']}`, seconds: {name}", spread(value), goals.get(name, "")
    for way, value in found["seconds"].items():
        memory = spread(found["peak_pss_mib"][way], ".0f")
        yield f"Study `{found['study']}`, {way}", f"{spread(value, '.0f')} s; all processes {memory} MiB", ""


def training(found: dict[str, Any]) -> Iterator[Row]:
    """benchmarks/training.py"""
    goals = {"loragrid's pace to bare TRL's": "≥ 1.0", "bare TRL's process seconds to loragrid's": "≥ 1.0"}
    goals["loragrid's packed pace to bare TRL's padded"] = "≥ 2.0 on a GPU"
    for name, value in found["ratios"].items():
        yield f"Training: {name}", spread(value), goals.get(name, "")


def real(found: dict[str, Any]) -> Iterator[Row]:
    """benchmarks/real.py"""
    goals = {"loragrid's pace to bare TRL's": "≥ 1.3"}
    for threads, one in found.get("training", {}).items():
        where = f"Training {found['model']}, threads: {threads}"
        for name, value in one["ratios"].items():
            yield f"{where}; {name}", spread(value), goals.get(name, "")
        rate = f"{spread(one['share_of_products'])} of {1000 * one['products_tflops']:.0f} GFLOPS"
        yield f"{where}; share of the rate of matrix products", rate, ""
    if "study" in found:
        sizes = f"{found['tokens']:,} tokens a run, {found['heldout']} held-out rows, {found['items']} items a set"
        for name, value in found["study"]["ratios"].items():
            goal = "≤ 0.7" if name == "one core to one process" else ""
            yield f"Study of {found['model']} ({sizes}), {name}", spread(value), goal


def scoring(found: dict[str, Any]) -> Iterator[Row]:
    """benchmarks/scoring.py"""
    goals = {"lm_eval to workflow": "≥ 3", "lm_eval to one process": "≥ 2"}
    for name, value in found["ratios"].items():
        yield f"Scoring {found['subjects']} subjects, seconds: {name}", spread(value), goals.get(name, "")
    same = found["agreement"]
    yield "Scoring: item values that differ from lm_eval's", f"{same['different']} of {same['compared']}", "0"


def generation(found: dict[str, Any]) -> Iterator[Row]:
    """benchmarks/generation.py"""
    goals = {"loragrid to lm-eval, batch size 1": "≥ 3"}
    asked = f"{found['model']}, answers of {found['tokens']} tokens"
    for name, value in found["ratios"].items():
        yield f"Generation ({asked}), tokens per CPU second: {name}", spread(value, ".1f"), goals.get(name, "")
    for way, same in found["texts"].items():
        figure = f"{same['different']} of {same['compared']}"
        yield f"Generation: answers that differ from those of {way}", figure, ""


def scale(found: dict[str, Any]) -> Iterator[Row]:
    """benchmarks/scale.py"""
    for size in found["snakemake"]:
        for what in ("dry run", "nothing to do", "more cells, dry run"):
            seconds = [one["seconds"] for one in size[what]["taken"]["loragrid"]]
            took = f"{min(seconds):.1f} to {max(seconds):.1f} s"
            ratios = [
                f"{spread(size[what][ratio])} × {whose}'s, {spread(size[what][f'cpu_{ratio}'])} × in CPU"
                for ratio, whose in (("ratio", "the bare Snakefile"), ("linted_ratio", "a linted one"))
            ]
            yield f"{size['cells']:,} cells, {what}", "; ".join((took, *ratios)), "≤ 1.2 × the bare one's"
    for size in found["prepare_data"]:
        figure = f"{size['seconds']:.1f} s ({size['cpu_seconds']:.1f} s CPU), {size['peak_pss_mib']:.0f} MiB, "
        figure += f"{size['milliseconds_per_row']} ms a row, {size['tokens'] / 1e6:.1f} M tokens"
        yield f"prepare_data, {size['rows']:,} conversations", figure, "≤ 120 s, ≤ 2 GiB" if size["rows"] >= 1e5 else ""
        for each in size.get("parallel", []):
            figure = f"{each['times_as_fast']} × as fast, {each['seconds']:.1f} s ({each['cpu_seconds']:.1f} s CPU), "
            figure += f"{each['peak_pss_mib']:.0f} MiB, {'the same' if each['same_card'] else 'ANOTHER'} data card"
            what = f"prepare_data, {size['rows']:,} conversations, {each['processes']} processes"
            yield what, figure, "≥ 1.7 × on two cores, ≤ 2 GiB" if size["rows"] >= 1e5 else ""


def report_reach(found: dict[str, Any]) -> Iterator[Row]:
    """benchmarks/report_reach.py"""
    for size in found["compare_and_report"]:
        peak = max(size[stage]["peak_pss_mib"] for stage in ("compare", "report"))
        cpu = sum(size[stage]["cpu_seconds"] for stage in ("compare", "report"))
        figure = f"{size['seconds']} s ({cpu:.1f} s CPU), {peak:.0f} MiB, page {size['page_mb']} MB"
        yield (
            f"compare + report, {size['runs']:,} runs × 5 tasks × {size['items']} items",
            figure,
            _report_goal(size["runs"]),
        )
    if found["scroll"]:
        scroll = found["scroll"]
        frames = f"{spread(scroll['frame_ms'], '.0f')} ms between frames, {scroll['share_over_50_ms']:.1%} over 50 ms"
        opening = f"opens (load event) in {scroll['open_seconds']:.1f} s"
        if "first_paint_seconds" in scroll:
            opening += (
                f" ({scroll['open_cpu_seconds']:.1f} s CPU), first paint after {scroll['first_paint_seconds']:.1f} s"
            )
        yield "Its page in Chromium, drawn by the CPU", f"{opening}; scrolled, {frames}", "< 1 s to open"


def _report_goal(runs: int) -> str:
    return "≤ 30 s, ≤ 2 GiB, ≤ 10 MB" if runs >= 1000 else ""


def checkpoint(found: dict[str, Any]) -> Iterator[Row]:
    """benchmarks/checkpoint.py"""
    for interval, value in found["share_spent_saving"].items():
        percent = {key: 100 * share for key, share in value.items()}
        yield f"Training time spent saving every {interval} updates", f"{spread(percent)} %", "≤ 3 % at 40"
    begin, resume = spread(found["seconds_to_begin"], ".1f"), spread(found["seconds_to_resume"], ".1f")
    yield "From start to the first update: fresh; resumed", f"{begin} s; {resume} s", ""
    yield "Updates made twice after a kill half-way between saves", spread(found["updates_replayed"], ".0f"), ""


def tune(found: dict[str, Any]) -> Iterator[Row]:
    """benchmarks/tune.py"""
    if "pruning" in found:
        pruning = found["pruning"]
        searches = len(pruning["searches"])
        yield f"Search: updates saved by pruning, mean of {searches}", f"{pruning['steps_saved_mean']:.0%}", "≥ 40 %"
        near = sum(row["gap"] <= pruning["noise_95"] for row in pruning["searches"])
        same = (
            f"same in {pruning['same_winner']} of {searches}, or within one standard deviation of the seeds' noise in "
        )
        same += (
            f"{pruning['same_or_within_noise']}, within its 95 % interval ({pruning['noise_95']:.3f} nats) in {near}"
        )
        yield "Search: winner the same as without pruning, or within noise", same, "all"
    for key in ("pace", "large_32bit", "large_4bit"):
        if key in found:
            yield from _pace(found[key], found["study"])


def _pace(found: dict[str, Any], study: str) -> Iterator[Row]:
    searches = found["searches"]
    trials = sum(sum(row["outcomes"].values()) for row in searches)
    pruned = sum(row["outcomes"].get("pruned", 0) for row in searches)
    where = f"{study}, {len(searches)} searches of {trials} trials in all, {pruned} pruned"
    if "precision" in found:
        size, tokens = (
            f"{found['parameters'] / 1e6:.0f} M parameters in {found['precision']}",
            found["budget"]["tokens"],
        )
        where = f"a made-up base of {size}, one search of {trials} trials of {tokens} tokens"
    ratios = found["plain_script_to_ours"]
    for name in ratios["seconds"]:
        what = f"Search, {where}: trials per minute to a plain Optuna + TRL script's, base {name}"
        shown = [
            spread(ratios[unit][name]) if len(searches) > 1 else f"{ratios[unit][name]['median']:.2f}"
            for unit in ("seconds", "cpu_seconds", "cpu_seconds_but_garbage")
        ]
        figure = f"{shown[0]}; by CPU seconds {shown[1]}; without garbage collection {shown[2]}"
        yield what, figure, {"reused": "≥ 1.5", "reloaded": "≥ 1.0"}[name]
    far = found["largest_loss_difference_to_plain"]
    yield (
        f"Search, {where}: largest difference to the plain script's held-out loss, which averages batches",
        f"{far:.3f} nats",
        "",
    )


def app(found: dict[str, Any]) -> Iterator[Row]:
    """benchmarks/app.py"""
    yield "App: seconds from request to the plan's last word", spread(found["answer_seconds"]), "≤ 1"
    yield "App: seconds to switch adapters", spread(found["switch_seconds"], ".3f"), "≤ 1"
    queue = found["queue"]
    figure = f"{queue['right']} in {queue['seconds']:.0f} s"
    yield f"App: of {queue['requests']} plan requests at once, answered as if asked alone", figure, "all"


def certificate(found: dict[str, Any]) -> Iterator[Row]:
    """scripts/tools/certify.py"""
    for one in found["variants"]:
        outcome = "all bitwise equal" if one["holds"] else "NOT equal"
        replayed = f"{one['steps_replayed']} updates made twice, at most {one['most_steps_replayed']} by one kill"
        figure = f"{one['kills']} kills, {one['kills_in_a_save']} in a save: {outcome}; {replayed}"
        yield (
            f"Killed and resumed: {one['variant']}, save interval {one['save_steps']}",
            figure,
            "all equal, ≤ the interval",
        )


def worker(found: dict[str, Any]) -> Iterator[Row]:
    """benchmarks/worker.py"""
    equal = "equal" if found["equal"] else "DIFFERENT"
    for way, value in found["seconds"].items():
        figure = f"{spread(value, '.1f')} s, {spread(found['cpu_seconds'][way], '.1f')} s CPU; adapters {equal}"
        yield f"Start to first update on a CPU, {way}", figure, "< 5 s on a GPU" if "second" in way else ""


def truth(found: dict[str, Any]) -> Iterator[Row]:
    """benchmarks/truth.py and benchmarks/truth_next.py: shares of made-up studies with their Monte-Carlo error"""
    for one in found["shares"]:
        promised = f"{one['predicted']:.1%} predicted, " if "predicted" in one else ""
        figure = f"{promised}{one['value' if 'value' in one else 'found']:.1%} ± {one['error']:.1%}"
        yield f"Truth: {one['what'].strip()}", figure, one.get("goal", "")


SECTIONS = {"study": study, "training": training, "scoring": scoring, "generation": generation, "scale": scale}
SECTIONS |= {"real": real, "report_reach": report_reach, "checkpoint": checkpoint, "worker": worker}
SECTIONS |= {"warm": study, "tune": tune, "app": app, "certificate": certificate, "truth": truth, "truth_next": truth}
