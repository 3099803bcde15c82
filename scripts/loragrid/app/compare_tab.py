"""The Compare tab: two or three of the study's models answer one prompt with the same seed and settings."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import gradio as gr

from loragrid.app.answering import MIN_NEW_TOKENS, Answerer, Sampling
from loragrid.app.request_handling import CancelEvents, cost_line, report_errors, status_html, throttled_answers
from loragrid.app.running_plan_form import MAX_SEED, number_error, text_error
from loragrid.app.running_plan_tab import MODEL_QUEUE
from loragrid.formatting import visible

NO_MODEL = "(none)"
PROMPT_CHARACTERS = 4000
MAX_TOKENS = 1024
MAX_TEMPERATURE = 2.0


class CompareTab:
    """Builds the tab and handles its events."""

    def __init__(self, answerer: Answerer, cancel_events: CancelEvents) -> None:
        self.answerer, self.cancel_events = answerer, cancel_events
        self.catalogue = answerer.catalogue

    def build(self) -> None:
        """Lay out the tab and connect its events; call it inside a `gr.Blocks`."""
        ui = self.ui = SimpleNamespace()
        if self.catalogue.prompts:
            ui.pick = gr.Dropdown(
                list(self.catalogue.prompts), value=None, label="Pick a rephrased prompt of the study"
            )
        ui.prompt = gr.Textbox(label="Prompt", lines=3, max_lines=12, elem_id="prompt")
        with gr.Row():
            ui.seed = gr.Number(3407, label="Seed", info="same for all models", min_width=120)
            ui.temperature = gr.Number(
                0.7, label="Temperature", info="0 takes the likeliest token", step=0.1, min_width=120
            )
            ui.tokens = gr.Number(256, label="Maximum new tokens", info=f"up to {MAX_TOKENS}", min_width=120)
        with gr.Row():
            ui.ask = gr.Button("Ask the models", variant="primary", elem_id="ask")
            ui.stop = gr.Button("Stop", elem_id="stop_compare")
        ui.status = gr.HTML(
            status_html("Every model gets the same prompt, seed and settings."), elem_id="compare_status"
        )
        self._build_answers()
        if self.catalogue.prompts:
            ui.pick.input(lambda text: text or "", ui.pick, ui.prompt, queue=False, api_visibility="private")
        # The validator leaves the status of the last answers, which would look like this request's. It also stops
        # the events after its own, so this one comes first.
        ui.ask.click(
            self.show_errors,
            [ui.prompt, ui.seed, ui.temperature, ui.tokens, *ui.subjects],
            ui.status,
            queue=False,
            show_progress="hidden",
            api_visibility="private",
        )
        ui.ask.click(
            report_errors(self.ask, ui.status),
            [ui.prompt, ui.seed, ui.temperature, ui.tokens, *ui.subjects],
            [ui.status, *ui.texts, *ui.costs],
            validator=self.check,
            api_name="compare",
            show_progress="minimal",
            show_progress_on=ui.status,
            **MODEL_QUEUE,
        )
        ui.stop.click(self.halt, None, None, queue=False, show_progress="hidden", api_visibility="private")

    def _build_answers(self) -> None:
        """Three columns, each with a model's menu, its answer and its costs."""
        ui = self.ui
        ui.subjects, ui.texts, ui.costs = [], [], []
        start = self.catalogue.subject(self.catalogue.start)
        choices = [(subject.label, subject.name) for subject in self.catalogue.subjects]
        columns = (
            (self.catalogue.base_of(start).name, choices),
            (start.name, choices),
            (NO_MODEL, [(NO_MODEL, NO_MODEL), *choices]),
        )
        with gr.Row(equal_height=False):
            for number, (value, options) in enumerate(columns, start=1):
                with gr.Column(min_width=260):
                    menu = gr.Dropdown(options, value=value, label=f"Model {number}", elem_id=f"model_{number}")
                    ui.subjects.append(menu)
                    ui.texts.append(_text_box(f"Answer {number}", f"answer_{number}"))
                    ui.costs.append(gr.HTML(elem_id=f"cost_{number}"))

    def check(self, request: gr.Request, *values: Any) -> list[dict[str, Any]]:
        """One validation result for each input; Gradio shows it beside the field."""
        self.cancel_events.start_request(request.session_hash)
        return [gr.validate(not sentence, sentence) for sentence in prompt_form_errors(*values)]

    @staticmethod
    def show_errors(*values: Any) -> Any:
        """The status line of an invalid request."""
        errors = [sentence for sentence in prompt_form_errors(*values) if sentence]
        return status_html(f"✗ No model was asked: {errors[0]}", "bad") if errors else gr.skip()

    def ask(
        self, request: gr.Request, prompt: Any, seed: Any, temperature: Any, tokens: Any, *names: Any
    ) -> Iterator[dict]:
        """Generate one model's answer after the other's."""
        # Pages are validated by `check`; callers of the API get the first error here.
        errors = list(filter(None, prompt_form_errors(prompt, seed, temperature, tokens, *names)))
        if errors:
            raise gr.Error(errors[0], print_exception=False)
        ui = self.ui
        sampling = Sampling(int(seed), float(temperature), int(tokens))
        stop = self.cancel_events.event(request.session_hash)
        yield dict.fromkeys((*ui.texts, *ui.costs), "")
        chosen = [(i, self.catalogue.subject(name)) for i, name in enumerate(names) if name != NO_MODEL]
        for index, subject in chosen:
            action = "Generating" if self.answerer.is_loaded(subject) else "Loading"
            yield {ui.status: status_html(f"{action}: {subject.label}…", "busy")}
            for answer in throttled_answers(self.answerer, subject, prompt.strip(), sampling, stop):
                yield {ui.texts[index]: visible(answer.text), ui.costs[index]: status_html(cost_line(answer))}
            # Stop means the whole comparison, not only this model.
            if answer.ended == "stopped":
                yield {ui.status: status_html("Stopped.", "bad")}
                return
        yield {ui.status: status_html(f"✓ {len(chosen)} answers, seed {sampling.seed}", "good")}

    def halt(self, request: gr.Request) -> None:
        """Cancel the session's requests."""
        self.cancel_events.event(request.session_hash).set()


def prompt_form_errors(prompt: Any, seed: Any, temperature: Any, tokens: Any, *names: Any) -> list[str]:
    """A sentence for each invalid input, "" for a valid one."""
    prompt_error = text_error(prompt, PROMPT_CHARACTERS)
    if not prompt or (isinstance(prompt, str) and not prompt.strip()):
        prompt_error = "Please write a prompt."
    temperature_error = f"The temperature must be a number from 0 to {MAX_TEMPERATURE:g}."
    if isinstance(temperature, int | float) and 0 <= temperature <= MAX_TEMPERATURE:
        temperature_error = ""
    return [
        prompt_error,
        number_error(seed, "seed", 0, MAX_SEED),
        temperature_error,
        number_error(tokens, "maximum of new tokens", MIN_NEW_TOKENS, MAX_TOKENS),
        *("" if name else "Please choose a model." for name in names),
    ]


def _text_box(label: str, elem_id: str) -> gr.Textbox:
    return gr.Textbox(label=label, elem_id=elem_id, lines=8, max_lines=24, interactive=False, buttons=["copy"])
