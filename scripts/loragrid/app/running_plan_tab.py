"""The Plan tab: a form, the tuned model's plan as it is written, the untrained base's beside it, and what to take along."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date
from types import SimpleNamespace
from typing import Any

import gradio as gr

from loragrid.app import running_plan_files
from loragrid.app.answering import MAX_NEW_TOKENS, Answer, Answerer, Sampling
from loragrid.app.catalogue import Subject
from loragrid.app.request_handling import CancelEvents, cost_line, report_errors, status_html, throttled_answers
from loragrid.app.running_plan_form import (
    DAY_NAMES,
    FIELDS,
    NO_DAY,
    RunningPlanForm,
    form_errors,
    read_form,
    taught_range,
    write_request,
)
from loragrid.app.running_plan_html import adherence_html, measure_adherence, summary_html, table_html
from loragrid.demo.running_plans import LEVELS, RACES
from loragrid.formatting import visible

FIRST_SEED = 3407
# ASSUME: low enough that the demo's models follow a request as often as with their likeliest words, and plans still differ.
TEMPERATURE = 0.3
MODEL_QUEUE = {"concurrency_id": "model", "concurrency_limit": 1}


@dataclass(frozen=True)
class FinishedRequest:
    """A finished request of a session: what was asked, under which seed, and the texts that came ("" for none)."""

    form: RunningPlanForm
    seed: int
    asked: str
    tuned: str
    base: str


class RunningPlanTab:
    """Builds the tab and handles its events. `subject` is the tuned model that writes."""

    def __init__(self, answerer: Answerer, cancel_events: CancelEvents) -> None:
        self.answerer, self.cancel_events = answerer, cancel_events
        self.catalogue = answerer.catalogue
        self.subject = self.catalogue.subject(self.catalogue.start)
        self.base = self.catalogue.base_of(self.subject)

    def build(self) -> None:
        """Lay the tab out and connect its events; call it inside a `gr.Blocks`."""
        ui = self.ui = SimpleNamespace()
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=300):
                self._build_form()
            with gr.Column(scale=5, min_width=320):
                self._build_answer()
        ui.state = gr.State(None, time_to_live=3600)
        fields = [ui.fields[name] for name in FIELDS]
        shown = [ui.status, ui.tuned, ui.tuned_line, ui.base, ui.base_line, ui.summary, ui.table, ui.files, ui.state]
        for button, handler, name in ((ui.write, self.write, "plan"), (ui.again, self.write_again, "plan_again")):
            button.click(
                report_errors(handler, ui.status),
                [*fields, ui.beside, ui.start, ui.state],
                [*shown, ui.again],
                validator=self.check,
                api_name=name,
                show_progress="minimal",
                show_progress_on=ui.status,
                **MODEL_QUEUE,
            )
        ui.stop.click(self.stop, None, None, queue=False, show_progress="hidden", api_visibility="private")
        ui.beside.change(self.show_base, ui.beside, ui.base_column, queue=False, api_visibility="private").then(
            report_errors(self.add_base, ui.status),
            [ui.beside, ui.state],
            [ui.status, ui.base, ui.base_line, ui.state],
            show_progress="minimal",
            show_progress_on=ui.status,
            api_visibility="private",
            **MODEL_QUEUE,
        )
        ui.start.change(
            self.restart,
            [ui.start, ui.state],
            ui.files,
            validator=check_start,
            show_progress="hidden",
            api_visibility="private",
        )

    def _build_form(self) -> None:
        ui = self.ui
        fields = ui.fields = {}
        fields["name"] = gr.Textbox(label="Name", info="For the heading only; no model reads it.", max_lines=1)
        fields["race"] = gr.Dropdown(RACES, value="10K", label="Goal race")
        fields["level"] = gr.Dropdown(LEVELS, value="beginner", label="Current level")
        with gr.Row():
            fields["weeks"] = gr.Number(8, label="Weeks", min_width=110)
            fields["days_per_week"] = gr.Number(4, label="Days per week", min_width=110)
        if self.catalogue.taught:
            gr.HTML(f'<p class="hint">{taught_range()}</p>')
        fields["long_run_day"] = gr.Dropdown([NO_DAY, *DAY_NAMES], value=NO_DAY, label="Long-run day")
        with gr.Accordion("More details", open=False):
            fields["target_time"] = gr.Textbox(label="Target time", placeholder="52:00", max_lines=1)
            fields["injuries"] = gr.Textbox(label="Injuries", lines=2)
            fields["details"] = gr.Textbox(label="Anything else", lines=3)
        ui.beside = gr.Checkbox(True, label="Show the untrained base's answer beside it")
        ui.write = gr.Button("Write the plan", variant="primary", elem_id="write")
        with gr.Row():
            ui.again = gr.Button("Try again", interactive=False, elem_id="again", min_width=100)
            ui.stop = gr.Button("Stop", elem_id="stop", min_width=100)

    def _build_answer(self) -> None:
        ui = self.ui
        ui.status = gr.HTML(status_html("Fill in the form and press “Write the plan”."), elem_id="status")
        ui.summary = gr.HTML(elem_id="summary")
        with gr.Row(equal_height=False):
            with gr.Column(min_width=280):
                ui.tuned_line = gr.HTML(elem_id="tuned_line", elem_classes="line")
                ui.tuned = _text_box("Tuned", self.subject.label, "tuned")
            with gr.Column(min_width=280) as ui.base_column:
                ui.base_line = gr.HTML(elem_id="base_line", elem_classes="line")
                ui.base = _text_box("Untrained base", self.base.label, "base")
        ui.table = gr.HTML(elem_id="table")
        with gr.Row(elem_id="take_along"):
            with gr.Column(scale=1, min_width=260):
                ui.start = gr.DateTime(
                    lambda: running_plan_files.next_monday(date.today()).isoformat(),
                    include_time=False,
                    type="string",
                    label="Calendar starts on",
                )
            with gr.Column(scale=3, min_width=300):
                ui.files = gr.HTML(elem_id="files")

    def check(self, request: gr.Request, *values: Any) -> list[dict[str, Any]]:
        """One verdict for each input, shown beside its field."""
        self.cancel_events.start_request(request.session_hash)
        found = form_errors(dict(zip(FIELDS, values)))
        verdicts = [gr.validate(name not in found, found.get(name, "")) for name in FIELDS]
        return [*verdicts, gr.validate(True, ""), *check_start(values[-2], None)]

    def write(self, request: gr.Request, *values: Any) -> Iterator[dict]:
        """Write a plan under the first seed."""
        yield from self._write(values, FIRST_SEED, request)

    def write_again(self, request: gr.Request, *values: Any) -> Iterator[dict]:
        """Write a plan under the next seed."""
        yield from self._write(values, values[-1].seed + 1 if values[-1] else FIRST_SEED, request)

    def _write(self, values: tuple, seed: int, request: gr.Request) -> Iterator[dict]:
        ui = self.ui
        *fields, beside, start, _ = values
        filled = dict(zip(FIELDS, fields))
        found = list(form_errors(filled).values()) or [
            v["message"] for v in check_start(start, None) if not v["is_valid"]
        ]
        if found:  # a page is told by `check`, beside its field; this is for whoever calls without a page
            raise gr.Error(found[0], print_exception=False)
        form = read_form(filled)
        done = FinishedRequest(form, seed, write_request(form, taught=self.catalogue.taught), "", "")
        yield {
            ui.status: status_html(self._begins(self.subject), "busy"),
            ui.summary: summary_html(form, done.asked),
            **dict.fromkeys((ui.tuned, ui.tuned_line, ui.base, ui.base_line, ui.table, ui.files), ""),
        }
        stop = self.cancel_events.event(request.session_hash)
        for answer in throttled_answers(self.answerer, self.subject, done.asked, self._sampling(seed), stop):
            yield {ui.tuned: visible(answer.text), ui.status: status_html(f"Writing: {cost_line(answer)}", "busy")}
        done = replace(done, tuned=visible(answer.text))
        yield {
            ui.tuned_line: adherence_html(measure_adherence(form, done.tuned)),
            ui.table: table_html(done.tuned),
            ui.files: running_plan_files.links_html(form, done.tuned, running_plan_files.read_start(start)),
            ui.state: done,
            ui.again: gr.Button(interactive=True),
            ui.status: self._finished(answer, seed),
        }
        if beside and answer.ended != "stopped":
            yield from self._write_base(done, self._finished(answer, seed), request)

    def show_base(self, request: gr.Request, beside: bool) -> Any:
        """Show or hide the base's column at once; what it says comes in its turn."""
        self.cancel_events.start_request(request.session_hash)
        return gr.Column(visible=beside)

    def add_base(self, request: gr.Request, beside: bool, done: FinishedRequest | None) -> Iterator[dict]:
        """The base's answer to the request that the tuned model has answered, when it is switched on afterwards."""
        if beside and done is not None and not done.base:
            yield from self._write_base(done, status_html("The untrained base has answered.", "good"), request)
        else:
            yield {self.ui.status: gr.skip()}

    def _write_base(self, done: FinishedRequest, finished: str, request: gr.Request) -> Iterator[dict]:
        ui = self.ui
        yield {ui.base: "", ui.base_line: status_html(self._begins(self.base), "busy")}
        stop = self.cancel_events.event(request.session_hash)
        for answer in throttled_answers(self.answerer, self.base, done.asked, self._sampling(done.seed), stop):
            yield {ui.base: visible(answer.text)}
        yield {
            ui.base_line: adherence_html(measure_adherence(done.form, answer.text)),
            ui.state: replace(done, base=visible(answer.text)),
            ui.status: finished,
        }

    def restart(self, start: Any, done: FinishedRequest | None) -> str:
        """The files again, for another start date."""
        if done is None or not check_start(start, None)[0]["is_valid"]:
            return ""
        return running_plan_files.links_html(done.form, done.tuned, running_plan_files.read_start(start))

    def stop(self, request: gr.Request) -> None:
        """Stop the session's request."""
        self.cancel_events.event(request.session_hash).set()

    def _begins(self, subject: Subject) -> str:
        return "Writing…" if self.answerer.is_loaded(subject) else f"Loading {subject.model}…"

    def _finished(self, answer: Answer, seed: int) -> str:
        """Says clearly that the plan is there, or that it is not whole."""
        costs = f"{cost_line(answer)}, seed {seed}"
        if answer.ended == "itself":
            return status_html(f"✓ Plan generated: {costs}", "good")
        return status_html(f"The plan is not whole: {costs}", "bad")

    @staticmethod
    def _sampling(seed: int) -> Sampling:
        return Sampling(seed, TEMPERATURE, MAX_NEW_TOKENS)


def check_start(start: Any, _: Any) -> list[dict[str, Any]]:
    """Verdicts for a start date and the state that goes with it."""
    sentence = running_plan_files.start_error(start)
    return [gr.validate(not sentence, sentence), gr.validate(True, "")]


def _text_box(label: str, info: str, elem_id: str) -> gr.Textbox:
    """A model's text: a plain text field, in which no markup can act."""
    return gr.Textbox(
        label=label,
        info=info,
        elem_id=elem_id,
        lines=10,
        max_lines=24,
        interactive=False,
        buttons=["copy"],
        autoscroll=True,
    )
