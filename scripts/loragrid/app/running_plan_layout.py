"""Layout of the Plan tab: the form, and the fields for the answers and downloads."""

from datetime import date
from types import SimpleNamespace

import gradio as gr

from loragrid.app.request_handling import status_html
from loragrid.app.running_plan_files import next_monday
from loragrid.app.running_plan_form import DAY_NAMES, NO_DAY, taught_range
from loragrid.demo.running_plans import LEVELS, RACES


def build_form(ui: SimpleNamespace, *, taught: bool) -> None:
    """Add the form's fields (`ui.fields`, by name) and its buttons."""
    fields = ui.fields = {}
    fields["name"] = gr.Textbox(label="Name", info="For the heading only; no model reads it.", max_lines=1)
    fields["race"] = gr.Dropdown(RACES, value="10K", label="Goal race")
    fields["level"] = gr.Dropdown(LEVELS, value="beginner", label="Current level")
    with gr.Row():
        fields["weeks"] = gr.Number(8, label="Weeks", min_width=110)
        fields["days_per_week"] = gr.Number(4, label="Days per week", min_width=110)
    if taught:
        gr.HTML(f'<p class="hint">{taught_range()}</p>')
    fields["long_run_day"] = gr.Dropdown([NO_DAY, *DAY_NAMES], value=NO_DAY, label="Long-run day")
    with gr.Accordion("More details", open=False):
        fields["target_time"] = gr.Textbox(label="Target time", placeholder="52:00", max_lines=1)
        fields["injuries"] = gr.Textbox(label="Injuries", lines=2)
        fields["details"] = gr.Textbox(label="Anything else", lines=3)
    ui.with_base = gr.Checkbox(True, label="Show the base's answer beside it")
    ui.write = gr.Button("Write the plan", variant="primary", elem_id="write")
    with gr.Row():
        ui.again = gr.Button("Try again", interactive=False, elem_id="again", min_width=100)
        ui.stop = gr.Button("Stop", elem_id="stop", min_width=100)


def build_answer(ui: SimpleNamespace, *, tuned: str, base: str) -> None:
    """Add the status line, the summary, the texts of the models labelled `tuned` and `base`, the table and the
    downloads."""
    ui.status = gr.HTML(status_html("Fill in the form and press “Write the plan”."), elem_id="status")
    ui.summary = gr.HTML(elem_id="summary")
    with gr.Row(equal_height=False):
        with gr.Column(min_width=280):
            ui.tuned_line = gr.HTML(elem_id="tuned_line", elem_classes="line")
            ui.tuned = _text_box("Tuned", tuned, "tuned")
        with gr.Column(min_width=280) as ui.base_column:
            ui.base_line = gr.HTML(elem_id="base_line", elem_classes="line")
            ui.base = _text_box("Base, not fine-tuned", base, "base")
    ui.table = gr.HTML(elem_id="table")
    with gr.Row(elem_id="take_along"):
        with gr.Column(scale=1, min_width=260):
            ui.start = gr.DateTime(
                lambda: next_monday(date.today()).isoformat(),
                include_time=False,
                type="string",
                label="Calendar starts on",
            )
        with gr.Column(scale=3, min_width=300):
            ui.files = gr.HTML(elem_id="files")


def _text_box(label: str, info: str, elem_id: str) -> gr.Textbox:
    """A field for a model's text: plain text, so that no markup in it can act."""
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
