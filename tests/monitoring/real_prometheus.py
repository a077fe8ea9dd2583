"""A real Prometheus over one exporter, with its own folder and everything about it in seconds."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

from ruamel.yaml import YAML

from tests.monitoring.alert_rules import PROMETHEUS, hastened
from tests.waiting import eventually
from tradepool.server.embedded import free_port

__all__ = ["RealPrometheus", "running_prometheus"]

ANSWER_TIMEOUT_S = 10
END_TIMEOUT_S = 20
INTERVAL = "500ms"


class RealPrometheus:
    """What it can be asked."""

    def __init__(self, url: str) -> None:
        self.url = url

    def is_ready(self) -> bool:
        try:
            with urlopen(f"{self.url}/-/ready", timeout=ANSWER_TIMEOUT_S) as answer:
                return answer.status == 200
        except (URLError, ConnectionError):
            return False

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series that the expression has now."""
        url = f"{self.url}/api/v1/query?{urlencode({'query': expression})}"
        with urlopen(url, timeout=ANSWER_TIMEOUT_S) as answer:
            result = json.load(answer)
        assert result["status"] == "success"
        return result["data"]["result"]

    def firing(self) -> set[str]:
        """The names of the alerts that fire."""
        return {alert["labels"]["alertname"] for alert in self.alerts() if alert["state"] == "firing"}

    def alerts(self) -> list[dict[str, Any]]:
        with urlopen(f"{self.url}/api/v1/alerts", timeout=ANSWER_TIMEOUT_S) as answer:
            return json.load(answer)["data"]["alerts"]

    def last_error(self) -> str:
        """Why the last evaluation of some rule failed."""
        with urlopen(f"{self.url}/api/v1/rules", timeout=ANSWER_TIMEOUT_S) as answer:
            groups = json.load(answer)["data"]["groups"]
        return "".join(rule.get("lastError", "") for group in groups for rule in group["rules"])


@contextmanager
def running_prometheus(binary: Path, folder: Path, target: str) -> Iterator[RealPrometheus]:
    """One with the configuration of production, which scrapes `target` and evaluates twice a second."""
    folder.mkdir()
    config = YAML(typ="safe").load(PROMETHEUS)
    config["global"] |= {
        "scrape_interval": INTERVAL,
        "scrape_timeout": INTERVAL,
        "evaluation_interval": INTERVAL,
    }
    config["scrape_configs"][0]["static_configs"] = [{"targets": [target]}]
    (folder / "prometheus.yml").write_text(json.dumps(config), encoding="utf-8")
    (folder / "alerts.yml").write_text(hastened(), encoding="utf-8")
    port = free_port()
    command = [
        str(binary),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    with (folder / "log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            found = RealPrometheus(f"http://127.0.0.1:{port}")
            eventually(lambda: process.poll() is not None or found.is_ready())
            assert process.poll() is None, (folder / "log").read_text(encoding="utf-8")
            yield found
        finally:
            process.terminate()
            process.wait(END_TIMEOUT_S)
