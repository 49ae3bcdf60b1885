"""What this documentation takes from the code itself, so that the two cannot disagree.

Tables of options, events, decisions and states, and the drawings of the states, are made when the
pages are built, without the network and without a program to draw graphs.
All directives are reStructuredText's: in Markdown they stand inside ``{eval-rst}``.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import math
import os
import pkgutil
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from functools import cache
from html import escape
from typing import Any, Final, get_args
from unittest import mock

import attrs
from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import make_refnode

import wsclient
import wsclient.testing
from wsclient import LossKind, Phase
from wsclient.cli import main
from wsclient.observers import _measures, _otel, _prometheus, _structlog
from wsclient.session import _policy
from wsclient.testing import _invariants

PUBLIC: Final = (wsclient, wsclient.testing)

# --- what the code says of itself -----------------------------------------------------------------


@cache
def attribute_docs() -> dict[tuple[str, str], str]:
    """The docstrings that stand under attributes, by class (or ``""``) and attribute."""
    found: dict[tuple[str, str], str] = {}
    for module in pkgutil.walk_packages(wsclient.__path__, "wsclient."):
        if module.name.startswith("wsclient.cli"):
            continue  # Says nothing that is documented, and may want what is not installed.
        analyzer = ModuleAnalyzer.for_module(module.name)
        for key, lines in analyzer.find_attr_docs().items():
            found.setdefault(key, "\n".join(lines))
    return found


def doc_of(qualified_name: str) -> str:
    """The docstring of a public name; of a value, what stands under it."""
    module_name, _, name = qualified_name.rpartition(".")
    value = getattr(importlib.import_module(module_name), name)
    if inspect.isclass(value) or inspect.isfunction(value):
        return inspect.getdoc(value) or ""
    doc = attribute_docs().get(("", name))
    if doc is None and (members := get_args(value)):
        names = [f":py:class:`~{module_name}.{member.__name__}`" for member in members]
        doc = f"One of {', '.join(names)}."
    if doc is None:
        raise ValueError(f"{qualified_name} has no docstring")
    return doc


def first_sentence(doc: str) -> str:
    """The first line or sentence of a docstring, on one line."""
    paragraph = " ".join(doc.strip().partition("\n\n")[0].split())
    sentence, period, _ = paragraph.partition(". ")
    return sentence + period.rstrip()


def table(header: Iterable[str], rows: Iterable[Iterable[str]], widths: str = "auto") -> str:
    """A table in reStructuredText."""
    lines = [".. list-table::", "   :header-rows: 1", f"   :widths: {widths}", ""]
    for row in (header, *rows):
        for index, cell in enumerate(row):
            first, *rest = cell.split("\n")
            lines.append(f"{'     - ' if index else '   * - '}{first}")
            lines += [f"       {line}" for line in rest]
    return "\n".join([*lines, ""])


# --- names ----------------------------------------------------------------------------------------


class PublicNames(SphinxDirective):
    """``.. public-names:: wsclient``: every public name of a module, and what it is."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        module = importlib.import_module(self.arguments[0])
        names = [f"{module.__name__}.{name}" for name in module.__all__]
        rows = [(f":py:obj:`~{name}`", first_sentence(doc_of(name))) for name in names]
        return self.parse_text_to_nodes(table(("name", "what it is"), rows, "30 70"))


class Value(SphinxDirective):
    """``.. value:: wsclient.Headers``: a constant or a type alias, and what stands under it."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        lines = [f".. py:data:: {name}", ""]
        lines += [f"   {line}" for line in doc_of(name).splitlines()]
        return self.parse_text_to_nodes("\n".join([*lines, ""]))


class ModuleDocstring(SphinxDirective):
    """``.. module-docstring:: wsclient.errors``: what a module says at its top."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        module = importlib.import_module(self.arguments[0])
        doc = inspect.getdoc(module) or ""
        return self.parse_text_to_nodes(doc.partition("\n\n")[2] + "\n")


class InvariantsTable(SphinxDirective):
    """``.. invariants-table::``: what the test kit holds a channel to."""

    def run(self) -> list[nodes.Node]:
        rows = [
            (name, first_sentence(inspect.getdoc(invariant) or "").removeprefix(f"{name}: "))
            for name, invariant in _invariants.INVARIANTS.items()
        ]
        return self.parse_text_to_nodes(table(("invariant", "what must hold"), rows, "15 85"))


class OptionsTable(SphinxDirective):
    """``.. options-table:: wsclient.Limits``: the fields of a class, with their defaults."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0].rpartition(".")[2]
        kind = getattr(wsclient, name)
        rows = [
            (
                f":py:attr:`~wsclient.{name}.{field.name}`",
                f"``{_default(field.default)}``",
                first_sentence(attribute_docs()[name, field.name]),
            )
            for field in attrs.fields(kind)
        ]
        return self.parse_text_to_nodes(table(("option", "default", "meaning"), rows, "25 15 60"))


def _default(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 2**20:
        return f"{value / 2**20:g} MiB"
    return repr(value)


# --- events ---------------------------------------------------------------------------------------


class EventsTable(SphinxDirective):
    """``.. events-table::``: every event, its level in the log, and its fields."""

    def run(self) -> list[nodes.Node]:
        everywhere = set(attrs.fields_dict(wsclient.Event))
        kinds = [
            kind
            for name in wsclient.__all__
            if inspect.isclass(kind := getattr(wsclient, name))
            and issubclass(kind, wsclient.Event)
            and kind is not wsclient.Event
        ]
        order = list(_structlog._LEVELS)
        rows = [
            (
                f":py:class:`~wsclient.{kind.__name__}`",
                _structlog._LEVELS[kind],
                ", ".join(
                    f"``{name}``" for name in attrs.fields_dict(kind) if name not in everywhere
                ),
            )
            for kind in sorted(kinds, key=order.index)
        ]
        return self.parse_text_to_nodes(
            table(("event", "level", "fields, beside ``channel``"), rows, "30 15 55")
        )


class MeasuresTable(SphinxDirective):
    """``.. measures-table::``: what is counted of events, as either library calls it."""

    def run(self) -> list[nodes.Node]:
        rows = [
            (
                f"``{_exposed(_prometheus.metric_name(measure), measure.kind)}``",
                f"``{_otel.instrument_name(measure)}``",
                measure.kind.value,
                ", ".join(f"``{label}``" for label in measure.labels),
                measure.help,
            )
            for measure in _measures.MEASURES
        ]
        header = ("Prometheus", "OpenTelemetry", "kind", "labels", "what it is")
        return self.parse_text_to_nodes(table(header, rows, "25 22 10 13 30"))


class ReadingsTable(SphinxDirective):
    """``.. readings-table::``: what is asked of a channel's statistics at each scrape."""

    def run(self) -> list[nodes.Node]:
        rows = []
        for reading in _prometheus.READINGS:
            labels = "``channel``"
            if reading.label is not None:
                values = [f"``{value}``" for value in reading.fields if value]
                among = f" ({', '.join(values)})" if values else ""
                labels += f", ``{reading.label}``{among}"
            name = _exposed(reading.name, reading.kind)
            rows.append((f"``{name}``", reading.kind.value, labels, reading.help))
        header = ("Prometheus", "kind", "labels", "what it is")
        return self.parse_text_to_nodes(table(header, rows, "27 10 28 35"))


def _exposed(name: str, kind: _measures.Kind) -> str:
    return f"{name}_total" if kind is _measures.Kind.COUNTER else name


# --- decisions ------------------------------------------------------------------------------------


class DecisionTable(SphinxDirective):
    """``.. decision-table::``: what ``classify`` decides, for everything that can happen."""

    def run(self) -> list[nodes.Node]:
        cases = _losses_by_rule()
        statuses = {name: [loss.status for loss in losses] for name, losses in cases.items()}
        codes = {name: [loss.code for loss in losses] for name, losses in cases.items()}
        rows = []
        for name, rule in _policy.RULES.items():
            what = [
                first_sentence(attribute_docs()["LossKind", loss.kind.name]).rstrip(".")
                for loss in cases[name]
                if loss.status is None and loss.code is None
            ]
            what += _ranges("HTTP status", name, statuses)
            what += _ranges("close code", name, codes)
            decision = wsclient.classify(cases[name][0], Phase.STEADY)
            rows.append(
                (
                    "; ".join(what),
                    _patience(rule.startup),
                    _patience(rule.steady),
                    _wait(cases[name][0]),
                    f":py:class:`~wsclient.{type(decision).__name__}`",
                )
            )
        header = ("what happened", "at startup", "in steady state", "wait", "first decision")
        return self.parse_text_to_nodes(table(header, rows, "34 16 18 18 14"))


def _losses_by_rule() -> dict[str, list[wsclient.Loss]]:
    """One loss of every kind, HTTP status and close code, by the rule that it falls under."""
    error = Exception()
    every = [
        wsclient.Loss(kind=kind, error=error)
        for kind in LossKind
        if kind not in (LossKind.REJECTED, LossKind.CLOSED)
    ]
    every += [
        wsclient.Loss(kind=LossKind.REJECTED, error=error, status=status)
        for status in range(100, 1000)
        if status != 101
    ]
    every += [
        wsclient.Loss(kind=LossKind.CLOSED, error=error, code=code) for code in range(1000, 5000)
    ]
    cases: dict[str, list[wsclient.Loss]] = {name: [] for name in _policy.RULES}
    for loss in every:
        cases[_policy.rule_for(loss).name].append(loss)
    return cases


def _ranges(what: str, name: str, numbers: Mapping[str, list[int | None]]) -> Iterator[str]:
    """The numbers of one rule in words; the rule with the most has what the others leave."""
    counts = {rule: sum(number is not None for number in found) for rule, found in numbers.items()}
    if not counts[name]:
        return
    if counts[name] == max(counts.values()):
        yield f"any other {what}"
        return
    spans: list[list[int]] = []
    for number in numbers[name]:
        if number is None:
            continue
        if spans and spans[-1][-1] == number - 1:
            spans[-1][1:] = [number]
        else:
            spans.append([number])
    yield f"{what} " + ", ".join("–".join(map(str, span)) for span in spans)


def _patience(patience: Any) -> str:
    if patience.times == 0:
        return "give up"
    if math.isfinite(patience.times):
        often = {1: "once", 2: "twice"}.get(patience.times, f"{patience.times} times")
        return f"retry {often}, then give up"
    if math.isfinite(patience.seconds):
        return f"retry for {patience.seconds / 60:g} minutes, then give up"
    return "retry"


def _wait(loss: wsclient.Loss) -> str:
    if isinstance(wsclient.classify(loss, Phase.STEADY), wsclient.Fatal):
        return "–"
    texts: list[str] = []
    for repeated, time in enumerate(("", *_TIMES), 1):
        decision = wsclient.classify(
            attrs.evolve(loss, repeated=repeated, since_stable=repeated), Phase.STEADY
        )
        if isinstance(decision, wsclient.Fatal):
            break
        delay = decision.delay
        text = "backoff" if delay is None else f"{delay[0]:g} to {delay[1]:g} s"
        if not texts or not texts[-1].endswith(text):
            texts.append(f"from the {time} time {text}" if texts else text)
    return "; ".join(texts)


_TIMES: Final = ("second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")


class PresetsTable(SphinxDirective):
    """``.. presets-table::``: what the close codes of known services mean."""

    def run(self) -> list[nodes.Node]:
        rows = [
            (
                f"`{preset.service} <{preset.source}>`__" if not index else "",
                _span(row.codes),
                row.meaning,
                f":py:class:`~wsclient.{row.decision.__name__}`",
            )
            for preset in wsclient.PRESETS.values()
            for index, row in enumerate(preset.meanings)
        ]
        header = ("service", "close code", "meaning", "decision")
        return self.parse_text_to_nodes(table(header, rows, "24 16 40 20"))


def _span(codes: range) -> str:
    return f"{codes[0]}" if len(codes) == 1 else f"{codes[0]}–{codes[-1]}"


# --- states ---------------------------------------------------------------------------------------

# Where the boxes stand, in columns and rows; a state without a place gets one in the last row.
PLACES: Final[dict[str, tuple[float, float]]] = {
    # A channel.
    "connecting": (0, 0),
    "establishing": (1, 0),
    "ready": (2, 0),
    "waiting": (1, 1.1),
    "draining": (1, 2.4),
    "closed": (0, 2.4),
    "failed": (2, 2.4),
}
CONNECTION_PLACES: Final[dict[str, tuple[float, float]]] = {
    "open": (0, 0),
    "closing": (1.5, 0),
    "answering": (0, 1.5),
    "closed": (1.5, 1.5),
}

Edge = tuple[str, str]
Transitions = Mapping[Enum, Mapping[Enum, Enum]]


class TransitionTable(SphinxDirective):
    """``.. transition-table:: wsclient.session._states``: which state follows which, and when."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        transitions: Transitions = importlib.import_module(self.arguments[0]).TRANSITIONS
        rows = []
        for state, row in transitions.items():
            following: dict[Enum, list[str]] = {}
            for step, target in row.items():
                following.setdefault(target, []).append(step.value)
            text = "\n".join(
                f"| {'stays' if target is state else f'**{target.value}**'}: {'; '.join(steps)}"
                for target, steps in following.items()
            )
            rows.append((f"**{state.value}**", text or "nothing: final"))
        return self.parse_text_to_nodes(table(("in this state", "what follows"), rows, "20 80"))


class TransitionDiagram(SphinxDirective):
    """``.. transition-diagram:: wsclient.session._states``: the same, drawn."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        module = importlib.import_module(self.arguments[0])
        places = CONNECTION_PLACES if module.__name__.endswith("_machine") else PLACES
        return [nodes.raw("", draw(module.TRANSITIONS, places), format="html")]


COLUMN, ROW = 230.0, 96.0
BOX_WIDTH, BOX_HEIGHT = 118.0, 34.0
MARGIN = 84.0


class Box:
    """A rectangle around a point."""

    def __init__(self, x: float, y: float, width: float, height: float) -> None:
        self.x, self.y, self.width, self.height = x, y, width, height

    def edge_towards(self, x: float, y: float) -> tuple[float, float]:
        """Where the line from the middle to a point leaves the rectangle."""
        dx, dy = x - self.x, y - self.y
        scale = min(
            self.width / 2 / abs(dx) if dx else math.inf,
            self.height / 2 / abs(dy) if dy else math.inf,
        )
        return self.x + dx * scale, self.y + dy * scale


def draw(transitions: Transitions, places: Mapping[str, tuple[float, float]]) -> str:
    """The states as boxes, the steps as arrows; steps that change nothing are the table's."""
    boxes = _place(transitions, places)
    labels: dict[Edge, list[str]] = {}
    for state, row in transitions.items():
        for step, target in row.items():
            if target is not state:
                name = step.name.lower().replace("_", " ")
                labels.setdefault((state.value, target.value), []).append(name)
    shared = _shared_targets(labels)
    parts: list[str] = []
    if shared:
        inside, targets = shared
        frame = _frame(boxes[name] for name in inside)
        parts.append(_rectangle(frame, "stroke-dasharray='5 5' opacity='.6'"))
        for target in targets:
            text = labels[next(iter(inside)), target]
            for name in inside:
                del labels[name, target]
            start = Box(boxes[target].x, frame.y, 0, frame.height)
            parts.append(_arrow(start, boxes[target], text, bend=0))
    for (source, target), text in labels.items():
        bend = 26.0 if (target, source) in labels else 0.0
        parts.append(_arrow(boxes[source], boxes[target], text, bend=bend))
    for state, row in transitions.items():
        box = boxes[state.value]
        parts.append(_rectangle(box, "" if row else "stroke-width='3'"))
        parts.append(_text(box.x, box.y, state.value, "font-weight='600'"))
    width = max(box.x for box in boxes.values()) + MARGIN
    height = max(box.y for box in boxes.values()) + BOX_HEIGHT
    names = ", ".join(state.value for state in transitions)
    return (
        f"<svg viewBox='0 0 {width:g} {height:g}' role='img' style='max-width:{width:g}px'"
        f" font-size='13' font-family='inherit' aria-label='States and steps: {escape(names)}'>"
        "<defs><marker id='tip' viewBox='0 0 10 10' refX='9' refY='5' markerWidth='8'"
        " markerHeight='8' orient='auto'>"
        "<path d='M0 0 L10 5 L0 10 z' fill='currentColor'/></marker></defs>"
        f"{''.join(parts)}</svg>"
    )


def _place(transitions: Transitions, places: Mapping[str, tuple[float, float]]) -> dict[str, Box]:
    last_row = max(row for _, row in places.values()) + 1
    boxes: dict[str, Box] = {}
    homeless = 0
    for state in transitions:
        if state.value in places:
            column, row = places[state.value]
        else:
            column, row = float(homeless), last_row
            homeless += 1
        x, y = MARGIN + column * COLUMN, BOX_HEIGHT + row * ROW
        boxes[state.value] = Box(x, y, BOX_WIDTH, BOX_HEIGHT)
    return boxes


def _shared_targets(labels: Mapping[Edge, list[str]]) -> tuple[set[str], list[str]] | None:
    """States that have several steps in common, and where these lead: drawn once, from a frame."""
    sources: dict[tuple[str, tuple[str, ...]], set[str]] = {}
    for (source, target), text in labels.items():
        sources.setdefault((target, tuple(text)), set()).add(source)
    common = [found for found in sources.values() if len(found) > 3]
    if not common:
        return None
    inside = set.intersection(*common)
    targets = [target for (target, _), found in sources.items() if inside <= found]
    return inside, targets


def _frame(boxes: Iterable[Box]) -> Box:
    all_boxes = list(boxes)
    left = min(box.x for box in all_boxes) - BOX_WIDTH / 2 - 16
    right = max(box.x for box in all_boxes) + BOX_WIDTH / 2 + 16
    top = min(box.y for box in all_boxes) - BOX_HEIGHT / 2 - 14
    bottom = max(box.y for box in all_boxes) + BOX_HEIGHT / 2 + 14
    return Box((left + right) / 2, (top + bottom) / 2, right - left, bottom - top)


def _rectangle(box: Box, style: str) -> str:
    return (
        f"<rect x='{box.x - box.width / 2:g}' y='{box.y - box.height / 2:g}'"
        f" width='{box.width:g}' height='{box.height:g}' rx='8'"
        f" fill='none' stroke='currentColor' {style}/>"
    )


def _text(x: float, y: float, text: str, style: str) -> str:
    return (
        f"<text x='{x:g}' y='{y:g}' text-anchor='middle' dominant-baseline='central'"
        f" fill='currentColor' {style}>{escape(text)}</text>"
    )


def _arrow(source: Box, target: Box, labels: list[str], *, bend: float) -> str:
    dx, dy = target.x - source.x, target.y - source.y
    length = math.hypot(dx, dy) or 1.0
    # To the right of the arrow's own direction: two that go both ways do not meet.
    control_x = (source.x + target.x) / 2 - dy / length * bend * 2
    control_y = (source.y + target.y) / 2 + dx / length * bend * 2
    x1, y1 = source.edge_towards(control_x, control_y)
    x2, y2 = target.edge_towards(control_x, control_y)
    path = (
        f"<path d='M{x1:g} {y1:g} Q{control_x:g} {control_y:g} {x2:g} {y2:g}' fill='none'"
        " stroke='currentColor' marker-end='url(#tip)'/>"
    )
    middle_x = (x1 + 2 * control_x + x2) / 4
    middle_y = (y1 + 2 * control_y + y2) / 4 - (len(labels) - 1) * 8
    texts = []
    for index, label in enumerate(labels):
        y = middle_y + index * 16
        width = len(label) * 6.6 + 6
        # The line does not run through its label: the page's colour lies between.
        texts.append(
            f"<rect x='{middle_x - width / 2:g}' y='{y - 8:g}' width='{width:g}' height='16'"
            " style='fill: var(--color-background-primary, white)'/>"
        )
        texts.append(_text(middle_x, y, label, "font-size='12'"))
    return path + "".join(texts)


# --- the command line ---------------------------------------------------------------------------


class CommandHelp(SphinxDirective):
    """``.. command-help:: listen``: what ``wsclient listen --help`` prints."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        printed = io.StringIO()
        with (
            mock.patch.dict(os.environ, {"COLUMNS": "88", "NO_COLOR": "1"}),
            contextlib.redirect_stdout(printed),
        ):
            status = main([self.arguments[0], "--help"])
        if status:
            raise self.error(f"--help ended with status {status}")
        return [nodes.literal_block("", printed.getvalue(), language="text")]


# --- references and signatures --------------------------------------------------------------------


@cache
def public_by_home() -> dict[str, str]:
    """Where public things are defined → how they are called."""
    found: dict[str, str] = {}
    for module in PUBLIC:
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.isclass(value) or inspect.isfunction(value):
                found[f"{value.__module__}.{value.__qualname__}"] = f"{module.__name__}.{name}"
    return found


def resolve_private_path(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.TextElement
) -> nodes.Element | None:
    """Type hints name things by where they are defined: lead them to where they are documented."""
    target = public_by_home().get(node.get("reftarget", ""))
    if target is None:
        return None
    found = env.get_domain("py").objects.get(target)  # type: ignore[attr-defined]
    if found is None:
        return None
    return make_refnode(app.builder, node["refdoc"], found.docname, found.node_id, content, target)


# Made by functions of ours: how is nobody's concern.
NOT_CONSTRUCTED: Final = {
    "wsclient.ChannelStatistics",
    "wsclient.DurableChannel",
    "wsclient.Receipt",
    "wsclient.WebSocketConnection",
    "wsclient.testing.Fault",
    "wsclient.testing.Heard",
    "wsclient.testing.MemoryListener",
    "wsclient.testing.MemoryStream",
    "wsclient.testing.ServerConnection",
    "wsclient.testing.Visit",
}


def hide_constructors(
    app: Sphinx,
    what: str,
    name: str,
    value: object,
    options: object,
    signature: str | None,
    returns: str | None,
) -> tuple[str, str | None] | None:
    """Show no signature for what users do not construct, and for enumerations."""
    is_enum = inspect.isclass(value) and issubclass(value, Enum)
    if what in ("class", "exception") and (name in NOT_CONSTRUCTED or is_enum):
        return "", None
    return None


# Stands for a colon while napoleon looks for types in front of one; no docstring has it.
COLON: Final = "\ue000"


def hide_colons(
    app: Sphinx, what: str, name: str, value: object, options: object, lines: list[str]
) -> None:
    """Keep napoleon from reading "Seconds: …" as a type and its meaning.

    It does so at the beginning of what stands under an attribute, and in ``Returns``; here types
    are annotations.
    """
    is_returned = False
    for index, line in enumerate(lines):
        is_first = what in ("attribute", "data", "property") and index == 0
        if is_first or is_returned:
            lines[index] = line.replace(":", COLON)
        is_returned = line.strip() == "Returns:" or (is_returned and bool(line.strip()))


def show_colons(
    app: Sphinx, what: str, name: str, value: object, options: object, lines: list[str]
) -> None:
    """Undo :func:`hide_colons`, when napoleon is done."""
    lines[:] = [line.replace(COLON, ":") for line in lines]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register everything."""
    for name, directive in {
        "command-help": CommandHelp,
        "decision-table": DecisionTable,
        "presets-table": PresetsTable,
        "events-table": EventsTable,
        "invariants-table": InvariantsTable,
        "measures-table": MeasuresTable,
        "module-docstring": ModuleDocstring,
        "options-table": OptionsTable,
        "public-names": PublicNames,
        "readings-table": ReadingsTable,
        "transition-diagram": TransitionDiagram,
        "transition-table": TransitionTable,
        "value": Value,
    }.items():
        app.add_directive(name, directive)
    app.connect("missing-reference", resolve_private_path)
    app.connect("autodoc-process-docstring", hide_colons, priority=400)
    app.connect("autodoc-process-docstring", show_colons, priority=600)
    app.connect("autodoc-process-signature", hide_constructors)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
