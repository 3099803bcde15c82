"""The next steps of a compared study: its open questions, and the options to close them."""

from collections.abc import Sequence
from dataclasses import dataclass

from loragrid.deciding.compared_results import ComparedResults
from loragrid.deciding.costs import Costs
from loragrid.deciding.forecast import Forecast
from loragrid.deciding.further_values import further_questions
from loragrid.deciding.item_supply import ItemSupply
from loragrid.deciding.options import Option, OptionMaker
from loragrid.deciding.proposal import cheapest_ways
from loragrid.deciding.questions import Question, Unanswerable, open_questions


@dataclass(frozen=True)
class NextSteps:
    """The open questions with their cheapest ways, cheapest first, and all options.

    `untested` are comparisons that no option closes; `maker` works out further options.
    """

    ways: Sequence[tuple[Question, Option | None]]
    untested: Sequence[Unanswerable]
    options: Sequence[Option]
    maker: OptionMaker
    forecast: Forecast
    costs: Costs


def find_next_steps(compared: ComparedResults) -> NextSteps:
    """Work out the options for every open question."""
    forecast = Forecast(compared, ItemSupply(compared.study, compared.summary["tasks"]))
    questions, untested = open_questions(compared)
    further, refused = further_questions(forecast)
    questions, untested = [*questions, *further], [*untested, *refused]
    costs = Costs(forecast)
    maker = OptionMaker(forecast, costs, questions)
    options = maker.options()
    ways = cheapest_ways(questions, options, compared.terms["power"])
    return NextSteps(ways, untested, options, maker, forecast, costs)
