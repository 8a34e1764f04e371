"""Dashboards are what Grafana's published types say a dashboard is: no field it doesn't know, none
missing, and the options of each panel those of its kind.
"""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import ROOT

TYPES = Path(__file__).parent / "grafana" / "node_modules"
DASHBOARDS = sorted((ROOT / "deploy" / "grafana" / "dashboards").glob("*.json"))
SECONDS = 120

pytestmark = pytest.mark.skipif(
    not TYPES.exists(), reason="needs @grafana/schema, which make installs where there is npm"
)

PANELS = {
    "timeseries": "timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen",
    "table": "table/panelcfg/x/TablePanelCfg_types.gen",
    "state-timeline": "statetimeline/panelcfg/x/StateTimelinePanelCfg_types.gen",
    "stat": "stat/panelcfg/x/StatPanelCfg_types.gen",
    "logs": "logs/panelcfg/x/LogsPanelCfg_types.gen",
    "nodeGraph": "nodegraph/panelcfg/x/NodeGraphPanelCfg_types.gen",
}
"""The modules of the types of panels, by their type in a dashboard."""

HEAD = """\
import type { Dashboard } from '@grafana/schema';

// A JSON text has the values of enums; a panel may leave out any of its options.
type Plain<T> = T extends string ? `${T}` : T extends (infer U)[] ? Plain<U>[]
  : T extends object ? { [K in keyof T]: Plain<T[K]> } : T;
type Some<T> = T extends (infer U)[] ? Some<U>[]
  : T extends object ? { [K in keyof T]?: Some<T[K]> } : T;

// Prometheus' annotations have fields of their own beside what all annotations have.
type List = NonNullable<NonNullable<Dashboard['annotations']>['list']>;
type Own = { expr: string; titleFormat: string; textFormat: string };
type Annotations = { list: (Plain<List[number]> & Own)[] };
type Page = Omit<Plain<Dashboard>, 'annotations'> & { annotations: Annotations };
"""


def panels(dashboard: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for panel in dashboard["panels"]:
        yield from panel.get("panels", ())
        if panel["type"] != "row":
            yield panel


def checked(dashboards: dict[str, Any], folder: Path) -> str:
    """The compiler's complaints about these dashboards, by name."""
    lines = [HEAD]
    for number, module in enumerate(PANELS.values()):
        source = f"@grafana/schema/dist/esm/raw/composable/{module}"
        lines.append(f"import type * as panel{number} from '{source}';")
    for name, dashboard in dashboards.items():
        lines.append(f"export const {name}: Page = {json.dumps(dashboard)};")
        for at, panel in enumerate(panels(dashboard)):
            number = list(PANELS).index(panel["type"])
            about = f"{name}_{at}"
            options = json.dumps(panel.get("options", {}))
            lines.append(f"export const {about}: Some<Plain<panel{number}.Options>> = {options};")
            if custom := panel["fieldConfig"]["defaults"].get("custom"):
                kind = f"Some<Plain<panel{number}.FieldConfig>>"
                lines.append(f"export const {about}_custom: {kind} = {json.dumps(custom)};")
    (folder / "node_modules").symlink_to(TYPES)
    (folder / "check.ts").write_text("\n".join(lines), encoding="utf-8")
    flags = "--noEmit --strict --skipLibCheck --module esnext --moduleResolution bundler"
    node = shutil.which("node")
    assert node
    run = subprocess.run(
        [node, str(TYPES / "typescript" / "bin" / "tsc"), *flags.split(), "check.ts"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    return run.stdout + run.stderr


def test_dashboards_are_of_grafanas_schema(tmp_path: Path) -> None:
    found = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in DASHBOARDS}
    assert len(found) == 7
    assert checked(found, tmp_path) == ""


@pytest.mark.parametrize("where", ["dashboard", "panel", "options", "custom"])
def test_a_field_that_grafana_does_not_know_is_found(where: str, tmp_path: Path) -> None:
    dashboard = json.loads(DASHBOARDS[0].read_text(encoding="utf-8"))
    panel = next(each for each in panels(dashboard) if each["type"] == "timeseries")
    places = {
        "dashboard": dashboard,
        "panel": panel,
        "options": panel["options"],
        "custom": panel["fieldConfig"]["defaults"]["custom"],
    }
    places[where]["lineWith"] = 1
    assert "lineWith" in checked({"wrong": dashboard}, tmp_path)
