"""Names that something had before, and is still found by; whoever uses one reads what it is called now."""

from anomaly_ae.runtime.messages import logger

FUNCTIONS = {"run_plan": "run_pipeline"}


def current(name: str, renamed: dict[str, str]) -> str:
    """The name of today of what may be called as it was before, which is said then."""
    if name in renamed:
        logger.warning(f"{name} is called {renamed[name]} now; the old name goes on to work")
    return renamed.get(name, name)
