"""The Plan tab: a form, the tuned model's running plan, the untrained base's plan beside it, and downloads."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import gradio as gr

from loragrid.app import running_plan_files
from loragrid.app.answer_streamer import Answer
from loragrid.app.answering import MAX_NEW_TOKENS, Answerer, Sampling
from loragrid.app.catalogue import AppModel
from loragrid.app.request_handling import CancelEvents, cost_line, report_errors, status_html, throttled_answers
from loragrid.app.running_plan_form import FIELDS, RunningPlanForm, form_errors, form_prompt, read_form
from loragrid.app.running_plan_html import adherence_html, measure_adherence, summary_html, table_html
from loragrid.app.running_plan_layout import build_answer, build_form
from loragrid.formatting import visible

FIRST_SEED = 3407
# ASSUME: low enough that the demo's models follow requests as often as with greedy decoding, while plans still differ.
TEMPERATURE = 0.3
# All handlers that generate share one queue, because the models answer one request at a time.
MODEL_QUEUE = {"concurrency_id": "model", "concurrency_limit": 1}


@dataclass(frozen=True)
class SessionRequest:
    """A session's latest request: the form, its seed and prompt, and the two plans ("" before they are written)."""

    form: RunningPlanForm
    seed: int
    prompt: str
    tuned: str = ""
    base: str = ""


class RunningPlanTab:
    """Builds the tab and handles its events. `subject` is the tuned model, `base` its untrained base."""

    def __init__(self, answerer: Answerer, cancel_events: CancelEvents) -> None:
        self.answerer, self.cancel_events = answerer, cancel_events
        self.catalogue = answerer.catalogue
        self.subject = self.catalogue.subject(self.catalogue.start)
        self.base = self.catalogue.base_of(self.subject)

    def build(self) -> None:
        """Lay out the tab and connect its events; call it inside a `gr.Blocks`."""
        ui = self.ui = SimpleNamespace()
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=300):
                build_form(ui, taught=self.catalogue.taught)
            with gr.Column(scale=5, min_width=320):
                build_answer(ui, tuned=self.subject.label, base=self.base.model)
        # Kept in the server's memory only, and for an hour: plans hold personal details.
        ui.state = gr.State(None, time_to_live=3600)
        self._connect_buttons()
        ui.stop.click(self.stop, None, None, queue=False, show_progress="hidden", api_visibility="private")
        ui.with_base.change(self.toggle_base, ui.with_base, ui.base_column, queue=False, api_visibility="private").then(
            report_errors(self.add_base, ui.status),
            [ui.with_base, ui.state],
            [ui.status, ui.base, ui.base_line, ui.state],
            show_progress="minimal",
            show_progress_on=ui.status,
            api_visibility="private",
            **MODEL_QUEUE,
        )
        ui.start.change(
            self.update_files,
            [ui.start, ui.state],
            ui.files,
            validator=check_start,
            show_progress="hidden",
            api_visibility="private",
        )

    def _connect_buttons(self) -> None:
        """Connect the buttons that write a plan."""
        ui = self.ui
        fields = [ui.fields[name] for name in FIELDS]
        shown = [ui.status, ui.tuned, ui.tuned_line, ui.base, ui.base_line, ui.summary, ui.table, ui.files, ui.state]
        for button, handler, name in ((ui.write, self.write, "plan"), (ui.again, self.write_again, "plan_again")):
            # The validator leaves the status of the last plan, which would look like this request's. It also stops
            # the events after its own, so this one comes first.
            button.click(
                self.show_errors,
                [*fields, ui.start],
                ui.status,
                queue=False,
                show_progress="hidden",
                api_visibility="private",
            )
            button.click(
                report_errors(handler, ui.status),
                [*fields, ui.with_base, ui.start, ui.state],
                [*shown, ui.again],
                validator=self.check,
                api_name=name,
                show_progress="minimal",
                show_progress_on=ui.status,
                **MODEL_QUEUE,
            )

    def check(self, request: gr.Request, *values: Any) -> list[dict[str, Any]]:
        """One validation result for each input; Gradio shows it beside the field."""
        self.cancel_events.start_request(request.session_hash)
        errors = form_errors(dict(zip(FIELDS, values)))
        results = [gr.validate(name not in errors, errors.get(name, "")) for name in FIELDS]
        return [*results, gr.validate(True, ""), *check_start(values[-2], None)]

    def show_errors(self, *values: Any) -> Any:
        """The status line of an invalid form, which is near the buttons on a narrow screen too."""
        *fields, start = values
        errors = [*form_errors(dict(zip(FIELDS, fields))).values(), running_plan_files.start_error(start)]
        errors = [error for error in errors if error]
        return status_html(f"✗ No plan was written: {errors[0]}", "bad") if errors else gr.skip()

    def write(self, request: gr.Request, *values: Any) -> Iterator[dict]:
        """Write a plan with the first seed."""
        yield from self._write(values, FIRST_SEED, request)

    def write_again(self, request: gr.Request, *values: Any) -> Iterator[dict]:
        """Write a plan with the next seed."""
        latest = values[-1]
        seed = latest.seed + 1 if latest else FIRST_SEED
        yield from self._write(values, seed, request)

    def _write(self, values: tuple, seed: int, request: gr.Request) -> Iterator[dict]:
        """Generate the tuned model's plan with `seed`, and then the base's if it is switched on."""
        ui = self.ui
        *fields, with_base, start, _ = values
        form = self._valid_form(fields, start)
        latest = SessionRequest(form, seed, form_prompt(form, taught=self.catalogue.taught))
        yield {
            ui.status: status_html(self._starting_text(self.subject), "busy"),
            ui.summary: summary_html(form, latest.prompt),
            **dict.fromkeys((ui.tuned, ui.tuned_line, ui.base, ui.base_line, ui.table, ui.files), ""),
        }
        stop = self.cancel_events.event(request.session_hash)
        for answer in throttled_answers(self.answerer, self.subject, latest.prompt, self._sampling(seed), stop):
            yield {ui.tuned: visible(answer.text), ui.status: status_html(f"Writing: {cost_line(answer)}", "busy")}
        latest = replace(latest, tuned=visible(answer.text))
        status = self._final_status(answer, seed)
        yield {
            ui.tuned_line: adherence_html(measure_adherence(form, latest.tuned)),
            ui.table: table_html(latest.tuned),
            ui.files: self._links(latest, start),
            ui.state: latest,
            ui.again: gr.Button(interactive=True),
            ui.status: status,
        }
        # After a stop, the base's plan would only delay the next request.
        if with_base and answer.ended != "stopped":
            yield from self._write_base(latest, status, request)

    @staticmethod
    def _valid_form(fields: list, start: Any) -> RunningPlanForm:
        """The form, or the first error. Pages are validated by `check`; this is for callers of the API."""
        filled = dict(zip(FIELDS, fields))
        errors = [*form_errors(filled).values(), running_plan_files.start_error(start)]
        errors = [error for error in errors if error]
        if errors:
            raise gr.Error(errors[0], print_exception=False)
        return read_form(filled)

    def toggle_base(self, request: gr.Request, with_base: bool) -> Any:
        """Show or hide the base's column at once; `add_base` then fills it in its turn."""
        self.cancel_events.start_request(request.session_hash)
        return gr.Column(visible=with_base)

    def add_base(self, request: gr.Request, with_base: bool, latest: SessionRequest | None) -> Iterator[dict]:
        """Generate the base's plan for the latest request, if the user switches it on afterwards."""
        if with_base and latest is not None and not latest.base:
            status = status_html("The base has answered.", "good")
            yield from self._write_base(latest, status, request)
        else:
            yield {self.ui.status: gr.skip()}

    def _write_base(self, latest: SessionRequest, status: str, request: gr.Request) -> Iterator[dict]:
        """Generate the base's plan with the prompt and seed of `latest`; `status` is shown at the end."""
        ui = self.ui
        yield {ui.base: "", ui.base_line: status_html(self._starting_text(self.base), "busy")}
        stop = self.cancel_events.event(request.session_hash)
        for answer in throttled_answers(self.answerer, self.base, latest.prompt, self._sampling(latest.seed), stop):
            yield {ui.base: visible(answer.text)}
        yield {
            ui.base_line: adherence_html(measure_adherence(latest.form, answer.text)),
            ui.state: replace(latest, base=visible(answer.text)),
            ui.status: status,
        }

    def update_files(self, start: Any, latest: SessionRequest | None) -> str:
        """The download links for another start date."""
        if latest is None or running_plan_files.start_error(start):
            return ""
        return self._links(latest, start)

    def stop(self, request: gr.Request) -> None:
        """Cancel the session's requests."""
        self.cancel_events.event(request.session_hash).set()

    def _starting_text(self, subject: AppModel) -> str:
        if self.answerer.is_loaded(subject):
            return "Writing…"
        return f"Loading {subject.model}…"

    @staticmethod
    def _links(latest: SessionRequest, start: Any) -> str:
        return running_plan_files.links_html(latest.form, latest.tuned, running_plan_files.read_start(start))

    @staticmethod
    def _final_status(answer: Answer, seed: int) -> str:
        """The status line after an answer: whether the plan is complete, and its costs."""
        costs = f"{cost_line(answer)}, seed {seed}"
        if answer.ended == "finished":
            return status_html(f"✓ Plan generated: {costs}", "good")
        return status_html(f"The plan is incomplete: {costs}", "bad")

    @staticmethod
    def _sampling(seed: int) -> Sampling:
        return Sampling(seed, TEMPERATURE, MAX_NEW_TOKENS)


def check_start(start: Any, _: Any) -> list[dict[str, Any]]:
    """Validation results for a start date and for the state, which is always valid."""
    sentence = running_plan_files.start_error(start)
    return [gr.validate(not sentence, sentence), gr.validate(True, "")]
