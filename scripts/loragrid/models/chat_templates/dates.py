"""A fixed date for templates that print today's, so that a study gives the same result on every day."""

# ASSUME (date): a template that prints today's date (Llama 3 does) prints this date instead, the default of Llama 3.1
# itself, in training and in scoring.
FIXED_DATE = "26 Jul 2024"
# The parts of that date, a Friday, in the language of strftime. Longer directives come first.
_DIRECTIVES = {
    **{"%-d": "26", "%-m": "7", "%d": "26", "%e": "26", "%m": "07", "%b": "Jul", "%h": "Jul", "%B": "July"},
    **{"%Y": "2024", "%y": "24", "%A": "Friday", "%a": "Fri", "%F": "2024-07-26", "%D": "07/26/24", "%j": "208"},
    **{"%H": "00", "%I": "12", "%M": "00", "%S": "00", "%p": "AM", "%T": "00:00:00", "%R": "00:00", "%Z": "UTC"},
    **{"%z": "+0000"},
}
_REPLACED = "".join(f" | replace('{name}', '{text}')" for name, text in _DIRECTIVES.items())
# Jinja drops the line break after a block, so the original template keeps its leading whitespace.
FIXED_DATE_MACRO = "{% macro strftime_now(format) %}{{ format" + _REPLACED + " }}{% endmacro %}\n"


def with_fixed_date(template: str) -> str:
    """The template with a fixed date for `strftime_now`, if it prints a date."""
    if "strftime_now" not in template or template.startswith(FIXED_DATE_MACRO):
        return template
    return FIXED_DATE_MACRO + template


def all_with_fixed_date(templates: str | dict[str, str]) -> str | dict[str, str]:
    """The template of a tokenizer, or each of its named templates, with a fixed date."""
    if isinstance(templates, str):
        return with_fixed_date(templates)
    return {name: with_fixed_date(text) for name, text in templates.items()}
