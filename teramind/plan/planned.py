"""A plan with all that is to be said of it."""

from __future__ import annotations

from teramind.config import Config
from teramind.plan.assume import assume
from teramind.plan.estimate import Plan, estimate
from teramind.plan.lacks import lacks


def planned(config: Config, *, hardware: str | None, workers: int) -> tuple[Plan, list[str]]:
    """Plan a run of `config`; see `assume` for the arguments.

    Returns:
        The plan, and lines about what it assumes and leaves out.

    Raises:
        UserError: as `assume`.
    """
    given, notes = assume(config, hardware=hardware, workers=workers)
    plan = estimate(config, given)
    return plan, [*notes, *lacks(config, given.hardware, plan)]
