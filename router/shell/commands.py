"""The table of the ops socket: every command by its name, and what is common to all of them.

While the router starts only `status` and `version` are answered. What shows or changes anybody's
data is written down before its answer is shown.
"""

from typing import Any

from proto.wording import text
from router.shell.accesses import NOTED, OperatorAccesses
from router.shell.engine import Engine
from router.shell.operator import Operator
from router.shell.ops import Command, OpsError
from router.shell.persons import Persons
from router.shell.reload import Reload
from router.shell.report import Report, versions
from router.shell.trace import Trace


def table(report: Report, operator: Operator, reload: Reload) -> dict[str, Command]:
    """Return the commands of one router by name."""
    engine = report.engine
    commands = {
        **_looks(report),
        **operator.commands(),
        **Persons(engine, operator).commands(),
        **Trace(engine).commands(),
    }

    async def status(_: dict[str, Any]) -> dict[str, Any]:
        return report.status()

    async def version(_: dict[str, Any]) -> dict[str, Any]:
        return versions()

    async def reload_settings(_: dict[str, Any]) -> dict[str, Any]:
        return reload.settings()

    commands["reload"] = reload_settings
    waiting = {
        name: _when_started(engine, _noted(report.accesses, name, command))
        for name, command in commands.items()
    }
    return waiting | {"status": status, "version": version}


def _looks(report: Report) -> dict[str, Command]:
    async def queues(_: dict[str, Any]) -> dict[str, Any]:
        return {"queues": report.queue_rows()}

    async def sessions(_: dict[str, Any]) -> dict[str, Any]:
        return {"sessions": report.session_rows()}

    async def partners(_: dict[str, Any]) -> dict[str, Any]:
        return {"partners": report.partners.rows()}

    async def metrics(_: dict[str, Any]) -> dict[str, Any]:
        return {"text": report.metrics_page().decode()}

    return {"queues": queues, "sessions": sessions, "partners": partners, "metrics": metrics}


def _noted(accesses: OperatorAccesses, name: str, command: Command) -> Command:
    async def answer(request: dict[str, Any]) -> dict[str, Any]:
        result = await command(request)
        await accesses.note(name, request, result)
        return result

    return answer if name in NOTED else command


def _when_started(engine: Engine, command: Command) -> Command:
    async def answer(request: dict[str, Any]) -> dict[str, Any]:
        if engine.state == "starting":
            raise OpsError("starting", text("router.starting"))
        return await command(request)

    return answer
