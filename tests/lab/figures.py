"""What /metrics says, as numbers (Prometheus' text format)."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families


class Metrics:
    """One reading of /metrics."""

    def __init__(self, page: str) -> None:
        self.page = page
        self.samples = [sample for family in text_string_to_metric_families(page) for sample in family.samples]

    def of(self, name: str) -> dict[str, float]:
        """What the page has of `postmeter_NAME`, by labels."""
        return {str(each.labels): each.value for each in self.samples if each.name == f"postmeter_{name}"}

    def figure(self, name: str, **labels: str) -> float:
        """The sum of all samples of `postmeter_NAME` with these labels; 0 when there are none."""
        wanted = labels.items()
        return sum(
            sample.value
            for sample in self.samples
            if sample.name == f"postmeter_{name}" and wanted <= sample.labels.items()
        )
